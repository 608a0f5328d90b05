//! Live logs: the logs of active runs, which their workers send in chunks. Any process may receive
//! a chunk, and serve it.

use super::Fault;
use crate::domain::name::RunId;
use async_trait::async_trait;
use bytes::Bytes;

/// How many logs a run may have. They are listed with each append.
pub const MAX_LOGS: usize = 100;

/// The outcome of appending a chunk to a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// The chunk is stored; the log has that many bytes now.
    Size(u64),
    /// The chunk begins after the end of the log, which has that many bytes; nothing was stored.
    Gap(u64),
    /// The run's logs together would exceed the limit, or it has [`MAX_LOGS`] others; nothing was
    /// stored.
    Full,
}

/// The live logs.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait LiveLogs: Send + Sync {
    /// Appends a chunk that begins at `offset`, in bytes. The part of it that is stored already
    /// stays as it is, so that repeating a chunk is harmless. All logs of the run together have at
    /// most `max_bytes`.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails; the chunk may have been stored all the same.
    async fn append(
        &self,
        run: &RunId,
        name: &str,
        offset: u64,
        bytes: Bytes,
        max_bytes: u64,
    ) -> Result<Appended, Fault>;

    /// Returns a chunk of a log from `offset` on: at most `limit` bytes, possibly fewer than are
    /// stored, and empty at its end. Returns `None` when there is no such log.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn read(
        &self,
        run: &RunId,
        name: &str,
        offset: u64,
        limit: usize,
    ) -> Result<Option<Bytes>, Fault>;

    /// Returns the names of a run's logs, with their sizes in bytes.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn list(&self, run: &RunId) -> Result<Vec<(String, u64)>, Fault>;

    /// Returns the runs that have live logs.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn runs(&self) -> Result<Vec<RunId>, Fault>;

    /// Removes the logs of these runs. Runs without logs are ignored.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn remove(&self, runs: &[RunId]) -> Result<(), Fault>;
}
