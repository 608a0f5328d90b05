//! The backchannel, by which the runner calls the worker of an active run.

use super::artifact_store::FileReader;
use crate::domain::{active_run::ActiveRun, watch::Ping};
use async_trait::async_trait;

/// Why a call to a worker failed.
#[derive(Debug, thiserror::Error)]
pub enum BackchannelError {
    /// The run has no backchannel that can do this.
    #[error("{0} not supported for this type of run")]
    Unsupported(&'static str),
    /// The worker has no such log.
    #[error("no such log")]
    NoSuchLog,
    /// The worker did not respond, or not as it should.
    #[error("the worker cannot be reached: {0}")]
    Unreachable(String),
}

/// Calls workers. Implementations bound the time of a call themselves.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Backchannel: Send + Sync {
    /// Returns whether the worker is working on that run. A failure is part of the [`Ping`].
    async fn ping(&self, run: &ActiveRun) -> Ping;

    /// Orders the worker to stop the run. Repeating it is harmless.
    ///
    /// # Errors
    ///
    /// [`BackchannelError`] when the worker cannot be reached or has no way to be stopped.
    async fn kill(&self, run: &ActiveRun) -> Result<(), BackchannelError>;

    /// Returns the names of the run's logs.
    ///
    /// # Errors
    ///
    /// [`BackchannelError`] when the worker cannot be reached or shows no logs.
    async fn list_logs(&self, run: &ActiveRun) -> Result<Vec<String>, BackchannelError>;

    /// Opens a log at that offset, in bytes; the reader is empty when the log is not that long yet.
    ///
    /// # Errors
    ///
    /// [`BackchannelError::NoSuchLog`] when the worker has no log of that name; the other cases
    /// when it cannot be reached or shows no logs.
    async fn read_log(
        &self,
        run: &ActiveRun,
        name: &str,
        offset: u64,
    ) -> Result<FileReader, BackchannelError>;
}
