//! The store of logs of finished runs.

use super::{
    Fault,
    artifact_store::{FileReader, SpooledFile},
};
use crate::domain::{
    name::{CodebaseName, RunId},
    time::Time,
};
use async_trait::async_trait;

/// The folder that holds the logs of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFolder {
    /// The codebase of the run.
    pub codebase: CodebaseName,
    /// The run.
    pub run: RunId,
}

/// Logs by codebase, run and name; they are stored compressed.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait LogStore: Send + Sync {
    /// Stores the logs of a run that finished at that time; they are durable when this returns.
    /// Storing them again is harmless.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn store(
        &self,
        folder: &LogFolder,
        files: &[SpooledFile],
        finished: Time,
    ) -> Result<(), Fault>;

    /// Opens a log, uncompressed; `None` when the run has no log of that name.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn open(&self, folder: &LogFolder, name: &str) -> Result<Option<FileReader>, Fault>;

    /// Returns when the store can be used right now.
    ///
    /// # Errors
    ///
    /// [`Fault`] with the reason when it cannot.
    async fn health_check(&self) -> Result<(), Fault>;
}
