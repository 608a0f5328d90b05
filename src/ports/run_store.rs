//! Runs, stored for good.

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

/// Why an operation on results failed.
#[derive(Debug, thiserror::Error)]
pub enum RunStoreError {
    /// The run's claim is not held any more, or by somebody else.
    #[error("the claim of run {0} is lost")]
    ClaimLost(RunId),
    /// A run cannot be by a worker that is not known.
    #[error("no worker {0}")]
    UnknownWorker(String),
    /// What the run says breaks a rule of the store.
    #[error("the store refuses the run: {0}")]
    Refused(String),
    /// The store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Runs that ended since some time, by result code.
pub type FinishedCounts = BTreeMap<ResultCode, u64>;

/// The finished runs.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait RunStore: Send + Sync {
    /// The run of that id, with every fact that was stored.
    async fn run(&self, id: &RunId) -> Result<Option<Run>, RunStoreError>;

    /// The latest runs by the time they were stored, newest first.
    async fn latest(&self, limit: usize) -> Result<Vec<Run>, RunStoreError>;

    /// Sets the publish status and notes the news; answers the run as it is then, none when there is none.
    async fn set_publish_status(
        &self,
        id: &RunId,
        status: PublishStatus,
    ) -> Result<Option<Run>, RunStoreError>;

    /// The latest successful run of a pair that made that revision.
    async fn run_of_revision(
        &self,
        pair: &Pair,
        revision: &str,
    ) -> Result<Option<Run>, RunStoreError>;

    /// The highest version, in Debian order, that was built for a codebase and distribution.
    async fn last_build_version(
        &self,
        codebase: &CodebaseName,
        distribution: &str,
    ) -> Result<Option<String>, RunStoreError>;

    /// How many runs were stored since then, by result code; whole minutes.
    async fn finished_since(&self, since: Time) -> Result<FinishedCounts, RunStoreError>;

    /// Whether the store can be used right now.
    async fn health_check(&self) -> Result<(), RunStoreError>;
}
