//! The way to reach the worker of an active run.

use super::artifact_store::FileReader;
use crate::domain::{active_run::ActiveRun, watch::Ping};
use async_trait::async_trait;

/// Why a worker could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum BackchannelError {
    /// The run has no backchannel that can do this.
    #[error("{0} not supported for this type of run")]
    Unsupported(&'static str),
    /// The worker has no such log.
    #[error("no such log")]
    NoSuchLog,
    /// The worker did not answer as it should.
    #[error("the worker cannot be reached: {0}")]
    Unreachable(String),
}

/// Asks workers.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Backchannel: Send + Sync {
    /// Whether the worker is on that run. Every failure is part of the answer.
    async fn ping(&self, run: &ActiveRun) -> Ping;

    /// Tells the worker to stop the run.
    async fn kill(&self, run: &ActiveRun) -> Result<(), BackchannelError>;

    /// The names of the run's logs.
    async fn list_logs(&self, run: &ActiveRun) -> Result<Vec<String>, BackchannelError>;

    /// Opens a log, from that byte on; nothing when it is not that long yet.
    async fn read_log(
        &self,
        run: &ActiveRun,
        name: &str,
        offset: u64,
    ) -> Result<FileReader, BackchannelError>;
}
