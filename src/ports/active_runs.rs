//! Claims on queue items, and hosts that must not be asked for a while.

use super::Fault;
use crate::domain::{
    active_run::{ActiveRun, RunVcs},
    name::RunId,
    time::Time,
};
use async_trait::async_trait;
use chrono::TimeDelta;

/// Why an operation on a claim failed.
#[derive(Debug, thiserror::Error)]
pub enum ActiveRunStoreError {
    /// The claim is not held any more, or by somebody else.
    #[error("the claim of run {0} is lost")]
    ClaimLost(RunId),
    /// The store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// What is known of a run only after its item was claimed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct ClaimDetails {
    pub vcs: RunVcs,
    pub resume_from: Option<RunId>,
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// When it came.
    pub now: Time,
    /// How long a lease lasts from then; claims without one stay without.
    pub lease: TimeDelta,
}

/// A host that asked to be left alone.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct HostBackoff {
    pub host: String,
    pub until: Time,
}

/// The active runs. Each has a token, which only the one who claimed it knows; a stale token is `ClaimLost`.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait ActiveRunStore: Send + Sync {
    /// The active run of that id.
    async fn get(&self, id: &RunId) -> Result<Option<ActiveRun>, ActiveRunStoreError>;

    /// All active runs, the oldest first.
    async fn list(&self) -> Result<Vec<ActiveRun>, ActiveRunStoreError>;

    /// Adds to an active run what was found out about it.
    async fn amend(
        &self,
        id: &RunId,
        token: &str,
        details: ClaimDetails,
    ) -> Result<(), ActiveRunStoreError>;

    /// Notes a sign of life by [`ActiveRun::renew`]; answers the run as it is then.
    async fn renew(
        &self,
        id: &RunId,
        token: &str,
        renewal: Renewal,
    ) -> Result<ActiveRun, ActiveRunStoreError>;

    /// Notes how many pings in a row said that the run is lost.
    async fn suspect(
        &self,
        id: &RunId,
        token: &str,
        failures: u32,
    ) -> Result<(), ActiveRunStoreError>;

    /// Notes that the run is to stop, and why; the first reason stays. Answers the run as it is then, none when there is none.
    async fn cancel(
        &self,
        id: &RunId,
        reason: &str,
    ) -> Result<Option<ActiveRun>, ActiveRunStoreError>;

    /// Lets the item go: it is in its own place of the queue again, with any wish that came meanwhile.
    async fn release(&self, id: &RunId, token: &str, now: Time) -> Result<(), ActiveRunStoreError>;

    /// Takes over a claim that another runner made, as it is; false when the run is known or its item is held.
    async fn adopt(&self, run: ActiveRun) -> Result<bool, ActiveRunStoreError>;

    /// Leaves the codebases of a host alone until then; a later time stays.
    async fn back_off_host(&self, limit: HostBackoff) -> Result<(), ActiveRunStoreError>;

    /// The hosts that are limited now, by name.
    async fn backed_off_hosts(&self, now: Time) -> Result<Vec<HostBackoff>, ActiveRunStoreError>;

    /// Whether others who share the claims can be told of them right now.
    async fn health_check(&self) -> Result<(), ActiveRunStoreError>;
}
