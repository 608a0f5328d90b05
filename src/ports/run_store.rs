//! The store of finished runs.

use super::Fault;
use crate::domain::{
    name::{CodebaseName, RunId},
    publish::PublishStatus,
    run::{ResultCode, Run},
    schedule::Pair,
    time::Time,
};
use async_trait::async_trait;
use std::collections::BTreeMap;

/// Why an operation on runs failed.
#[derive(Debug, thiserror::Error)]
pub enum RunStoreError {
    /// The claim of the run is no longer held, or somebody else holds it.
    #[error("the claim of run {0} is lost")]
    ClaimLost(RunId),
    /// The run names a worker that has no account.
    #[error("no worker {0}")]
    UnknownWorker(String),
    /// The run breaks a rule of the store.
    #[error("the store refuses the run: {0}")]
    Refused(String),
    /// The store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// After how many bytes a list of runs ends, as they are stored.
pub const MAX_LIST_SIZE: usize = 16 << 20;

/// The number of runs that ended since some time, by result code.
pub type FinishedCounts = BTreeMap<ResultCode, u64>;

/// The finished runs. [`RunRecorder`](super::RunRecorder) adds them.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait RunStore: Send + Sync {
    /// Returns the run of that id.
    ///
    /// # Errors
    ///
    /// [`RunStoreError::Fault`] when the store fails.
    async fn run(&self, id: &RunId) -> Result<Option<Run>, RunStoreError>;

    /// Returns the runs of these ids in that order, without those that are missing. Large runs end the
    /// list early: it has no more after [`MAX_LIST_SIZE`] bytes.
    ///
    /// # Errors
    ///
    /// [`RunStoreError::Fault`] when the store fails.
    async fn runs_by_id(&self, ids: &[RunId]) -> Result<Vec<Run>, RunStoreError>;

    /// Returns the runs that were stored last, the newest first. Large runs end the list early: it
    /// has no more after [`MAX_LIST_SIZE`] bytes.
    ///
    /// # Errors
    ///
    /// [`RunStoreError::Fault`] when the store fails.
    async fn latest(&self, limit: usize) -> Result<Vec<Run>, RunStoreError>;

    /// Sets the publish status of a run and adds the event to the outbox. Returns the changed run;
    /// `None` when there is no run of that id.
    ///
    /// # Errors
    ///
    /// [`RunStoreError::Fault`] when the store fails.
    async fn set_publish_status(
        &self,
        id: &RunId,
        status: PublishStatus,
    ) -> Result<Option<Run>, RunStoreError>;

    /// Returns the latest successful run of a pair that made that revision.
    ///
    /// # Errors
    ///
    /// [`RunStoreError::Fault`] when the store fails.
    async fn run_of_revision(
        &self,
        pair: &Pair,
        revision: &str,
    ) -> Result<Option<Run>, RunStoreError>;

    /// Returns the highest version, in Debian order, that was built for a codebase and
    /// distribution.
    ///
    /// # Errors
    ///
    /// [`RunStoreError::Fault`] when the store fails.
    async fn last_build_version(
        &self,
        codebase: &CodebaseName,
        distribution: &str,
    ) -> Result<Option<String>, RunStoreError>;

    /// Returns how many runs were stored since that time, by result code. The time is truncated to
    /// whole minutes.
    ///
    /// # Errors
    ///
    /// [`RunStoreError::Fault`] when the store fails.
    async fn finished_since(&self, since: Time) -> Result<FinishedCounts, RunStoreError>;

    /// Returns when the store can be used right now.
    ///
    /// # Errors
    ///
    /// [`RunStoreError::Fault`] with the reason when it cannot.
    async fn health_check(&self) -> Result<(), RunStoreError>;
}
