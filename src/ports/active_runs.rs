//! The store of active runs, which are the claims on queue items.

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
    /// The claim is no longer held, or somebody else holds it.
    #[error("the claim of run {0} is lost")]
    ClaimLost(RunId),
    /// The store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A request to claim an item for a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRequest {
    /// Which items may be claimed.
    pub filter: ClaimFilter,
    /// The worker.
    pub claimant: Claimant,
    /// The id of the new active run.
    pub run_id: RunId,
    /// The token of the new claim, which nobody can guess.
    pub token: String,
    /// The time of the claim.
    pub now: Time,
    /// The duration of the lease; `None` for a worker that sends no heartbeats.
    pub lease: Option<TimeDelta>,
}

/// A claim, with the codebase of its item.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    /// The new active run.
    pub run: ActiveRun,
    /// The codebase of its item.
    pub codebase: Codebase,
}

/// What the runner learned about an active run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActiveRunUpdate {
    /// The branch was probed, and an earlier run to resume from was looked up.
    Probed {
        /// The branch that the probe found.
        vcs: RunVcs,
        /// The run to resume from, if any.
        resume_from: Option<RunId>,
    },
    /// Its worker was pinged.
    Pinged {
        /// The number of pings in a row that said the run is lost.
        failures: u32,
    },
    /// Its backchannel responded for the first time.
    Responded,
}

/// A heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// The time at which it was received.
    pub now: Time,
    /// The duration of the lease from then on. A claim without a lease gets none.
    pub lease: TimeDelta,
}

/// The active runs.
///
/// Each has a token that only its claimant knows; operations with a stale token fail with
/// [`ActiveRunStoreError::ClaimLost`] and change nothing. All methods may also fail with
/// [`ActiveRunStoreError::Fault`].
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait ActiveRunStore: Send + Sync {
    /// Claims the first item, in queue order, that matches the filter and is free: not claimed,
    /// parked or snoozed ([`Parking`](super::Parking)), not paused or at a limit
    /// ([`PauseStore`](super::PauseStore)), and not on a host that is avoided or backing off
    /// ([`HostBackoffs`](super::HostBackoffs)).
    ///
    /// The step is atomic: no two claims get the same item, and no limit is exceeded. Returns
    /// `None` when nothing matches, or the worker is paused: its account, or the node of the
    /// account ([`Claimant::counted_name`]).
    ///
    /// # Errors
    ///
    /// [`ActiveRunStoreError::Fault`] when the store fails; the claim may have been stored all the
    /// same.
    async fn claim(&self, request: ClaimRequest) -> Result<Option<Claimed>, ActiveRunStoreError>;

    /// Returns the active run of that id.
    ///
    /// # Errors
    ///
    /// [`ActiveRunStoreError::Fault`] when the store fails.
    async fn get(&self, id: &RunId) -> Result<Option<ActiveRun>, ActiveRunStoreError>;

    /// Returns all active runs, the oldest first.
    ///
    /// # Errors
    ///
    /// [`ActiveRunStoreError::Fault`] when the store fails.
    async fn list(&self) -> Result<Vec<ActiveRun>, ActiveRunStoreError>;

    /// Returns the active runs that are held by that worker with that backchannel, the oldest
    /// first. Empty when the claimant has no backchannel.
    ///
    /// # Errors
    ///
    /// [`ActiveRunStoreError::Fault`] when the store fails.
    async fn held_by(&self, claimant: &Claimant) -> Result<Vec<ActiveRun>, ActiveRunStoreError>;

    /// Returns how many active runs a worker holds.
    ///
    /// # Errors
    ///
    /// [`ActiveRunStoreError::Fault`] when the store fails.
    async fn count_held_by(&self, worker: &str) -> Result<u64, ActiveRunStoreError>;

    /// Stores what the runner learned about an active run. Repeating it is harmless.
    ///
    /// # Errors
    ///
    /// [`ActiveRunStoreError::ClaimLost`] when the token is stale.
    async fn update(
        &self,
        id: &RunId,
        token: &str,
        update: ActiveRunUpdate,
    ) -> Result<(), ActiveRunStoreError>;

    /// Applies a heartbeat by [`ActiveRun::renew`] and returns the renewed run. Repeating it, or
    /// sending an older heartbeat, is harmless.
    ///
    /// # Errors
    ///
    /// [`ActiveRunStoreError::ClaimLost`] when the token is stale.
    async fn renew(
        &self,
        id: &RunId,
        token: &str,
        renewal: Renewal,
    ) -> Result<ActiveRun, ActiveRunStoreError>;

    /// Marks a run to be stopped. A reason that is stored already stays. Returns the marked run;
    /// `None` when there is no active run of that id.
    ///
    /// # Errors
    ///
    /// [`ActiveRunStoreError::Fault`] when the store fails.
    async fn cancel(
        &self,
        id: &RunId,
        reason: &str,
    ) -> Result<Option<ActiveRun>, ActiveRunStoreError>;

    /// Releases the item: it returns to its position in the queue, and an enqueue request that was
    /// deferred while it was claimed is merged into it.
    ///
    /// # Errors
    ///
    /// [`ActiveRunStoreError::ClaimLost`] when the token is stale.
    async fn release(&self, id: &RunId, token: &str, now: Time) -> Result<(), ActiveRunStoreError>;

    /// Adopts a claim that another runner made, as it is. Returns false, and changes nothing, when
    /// the run is known already or its item is claimed.
    ///
    /// # Errors
    ///
    /// [`ActiveRunStoreError::Fault`] when the store fails.
    async fn adopt(&self, run: ActiveRun) -> Result<bool, ActiveRunStoreError>;
}
