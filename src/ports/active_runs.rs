//! Claims on queue items, and hosts that must not be asked for a while.

use super::{Fault, queue_store::ClaimFilter};
use crate::domain::{
    active_run::{ActiveRun, Claimant, RunVcs},
    codebase::Codebase,
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

/// A worker's wish for work.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct ClaimRequest {
    pub filter: ClaimFilter,
    pub claimant: Claimant,
    /// The active run to be.
    pub run_id: RunId,
    pub token: String,
    pub now: Time,
    /// How long the lease lasts, if the worker takes part in leases.
    pub lease: Option<TimeDelta>,
}

/// A claim, with the codebase of its item.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct Claimed {
    pub run: ActiveRun,
    pub codebase: Codebase,
}

/// What the runner found out about an active run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActiveRunUpdate {
    /// The branch was probed, and an earlier run to resume from was looked for.
    Probed {
        /// What the probe found.
        vcs: RunVcs,
        /// The run to resume from, if any.
        resume_from: Option<RunId>,
    },
    /// Its worker was pinged.
    Pinged {
        /// How many pings in a row said that the run is lost.
        failures: u32,
    },
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// When it came.
    pub now: Time,
    /// How long a lease lasts from then; claims without one stay without.
    pub lease: TimeDelta,
}

/// The active runs. Each has a token, which only the one who claimed it knows; a stale token is `ClaimLost`.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait ActiveRunStore: Send + Sync {
    /// Takes the first item that matches and that nobody holds, that is neither parked nor snoozed (`Parking`) nor paused
    /// nor over a limit (`Pauses`), whose codebase is not on a host to be avoided or rate limited at that time, and makes it
    /// an active run. One step: no two claims get the same item, and no limit is exceeded. None when nothing matches, or the
    /// worker is paused.
    async fn claim(&self, request: ClaimRequest) -> Result<Option<Claimed>, ActiveRunStoreError>;

    /// The active run of that id.
    async fn get(&self, id: &RunId) -> Result<Option<ActiveRun>, ActiveRunStoreError>;

    /// All active runs, the oldest first.
    async fn list(&self) -> Result<Vec<ActiveRun>, ActiveRunStoreError>;

    /// Stores what was found out about an active run.
    async fn update(
        &self,
        id: &RunId,
        token: &str,
        update: ActiveRunUpdate,
    ) -> Result<(), ActiveRunStoreError>;

    /// Notes a sign of life by [`ActiveRun::renew`]; answers the run as it is then.
    async fn renew(
        &self,
        id: &RunId,
        token: &str,
        renewal: Renewal,
    ) -> Result<ActiveRun, ActiveRunStoreError>;

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
}
