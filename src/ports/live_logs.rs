//! Logs of active runs, as their workers send them bit by bit. Any process may be sent a bit, and asked for it.

use super::Fault;
use crate::domain::name::RunId;
use async_trait::async_trait;
use bytes::Bytes;

/// What became of a bit of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is there; the log has so many bytes now.
    Size(u64),
    /// It begins after the end of the log, which has so many bytes; nothing was added.
    Gap(u64),
    /// The run's logs together would be larger than they may; nothing was added.
    Full,
}

/// Logs that grow.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait LiveLogs: Send + Sync {
    /// Adds a bit that begins at `offset`. What is there already of it is left as it is, so that a repeat is harmless.
    /// All logs of the run together have at most `room` bytes.
    async fn append(
        &self,
        run: &RunId,
        name: &str,
        offset: u64,
        bytes: Bytes,
        room: u64,
    ) -> Result<Appended, Fault>;

    /// A bit of a log from `offset` on, at most `limit` bytes and maybe fewer than there are; empty at its end, none when there is no such log.
    async fn read(
        &self,
        run: &RunId,
        name: &str,
        offset: u64,
        limit: usize,
    ) -> Result<Option<Bytes>, Fault>;

    /// The names of a run's logs, with their sizes.
    async fn list(&self, run: &RunId) -> Result<Vec<(String, u64)>, Fault>;

    /// The runs that there are logs of.
    async fn runs(&self) -> Result<Vec<RunId>, Fault>;

    /// Takes the logs of these runs away.
    async fn remove(&self, runs: &[RunId]) -> Result<(), Fault>;
}
