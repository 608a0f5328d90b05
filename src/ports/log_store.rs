//! Logs of finished runs.

use super::{
    Fault,
    artifact_store::{FileReader, SpooledFile},
};
use crate::domain::{
    name::{CodebaseName, RunId},
    time::Time,
};
use async_trait::async_trait;

/// Whose logs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct LogFolder {
    pub codebase: CodebaseName,
    pub run: RunId,
}

/// Logs by codebase, run and name; compressed at rest.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait LogStore: Send + Sync {
    /// Stores the logs of a run that finished then; they are durable when this returns. Storing the same again is harmless.
    async fn store(
        &self,
        folder: &LogFolder,
        files: &[SpooledFile],
        finished: Time,
    ) -> Result<(), Fault>;

    /// Opens one, uncompressed; none when there is none.
    async fn open(&self, folder: &LogFolder, name: &str) -> Result<Option<FileReader>, Fault>;

    /// Whether the store can be used right now.
    async fn health_check(&self) -> Result<(), Fault>;
}
