//! Recording runs: the one step in which a claim becomes a stored run.

use super::RunStoreError;
use crate::domain::{retry::Disposition, run::Run, time::Time};
use async_trait::async_trait;

/// A run to be recorded.
#[derive(Debug, Clone, PartialEq)]
pub struct NewRun {
    /// The run.
    pub run: Run,
    /// The token of its claim.
    pub token: String,
    /// The time of recording.
    pub now: Time,
    /// What happens to its queue item.
    pub disposition: Disposition,
    /// If set, the run is recorded only when the worker sent no heartbeat after this time.
    pub unless_seen_after: Option<Time>,
    /// Whether the worker is at fault: true adds to its failures in a row, false resets them,
    /// `None` leaves them as they are.
    pub worker_at_fault: Option<bool>,
    /// The name under which its failures are counted: the worker, or `WORKER/NODE`. `None` counts
    /// nothing.
    pub counted_name: Option<String>,
}

/// A result that was received after the runner had abandoned the run.
#[derive(Debug, Clone, PartialEq)]
pub struct LateRun {
    /// The run.
    pub run: Run,
    /// The time of recording.
    pub now: Time,
}

/// The outcome of recording a late result.
#[derive(Debug, Clone, PartialEq)]
pub enum LateOutcome {
    /// It replaced the abandoned run and completed the item.
    Replaced,
    /// It replaced the abandoned run. The item was claimed again since, so that run decides about
    /// it.
    ReplacedButRequeued,
    /// The run of that id was not abandoned; this is it.
    NotGivenUp(Box<Run>),
}

/// The outcome of recording a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Recorded {
    /// The run is stored.
    Stored,
    /// A run of that id was stored before; this is it.
    AlreadyStored(Box<Run>),
}

/// Records finished runs.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait RunRecorder: Send + Sync {
    /// Records a run in one step: stores it with its change set, branches and build, ends its
    /// claim, and adds its event to the outbox.
    ///
    /// By its [`Disposition`], the queue item is removed, a follow-up is stored and a deferred
    /// enqueue request is enqueued; or the item returns to its position in the queue and the
    /// deferred request is merged into it. Repeating it is harmless: a stored run of that id stays
    /// as it is and is returned.
    ///
    /// # Errors
    ///
    /// [`RunStoreError::ClaimLost`] when there is no run of that id and the token is stale, or the
    /// worker was seen after the given time; [`RunStoreError::UnknownWorker`] when the run names a
    /// worker without an account; [`RunStoreError::Refused`] when it breaks another rule of the
    /// store. Nothing is changed then.
    async fn record(&self, new: NewRun) -> Result<Recorded, RunStoreError>;

    /// Replaces the run of that id with a late result, if the runner abandoned that run, and adds
    /// the event to the outbox. Unless the item was claimed again since, the effect is as if the
    /// result had been recorded in time: the item is removed and a follow-up is stored.
    ///
    /// # Errors
    ///
    /// [`RunStoreError::ClaimLost`] when there is no run of that id;
    /// [`RunStoreError::UnknownWorker`] and [`RunStoreError::Refused`] as for
    /// [`RunRecorder::record`].
    async fn record_late(&self, late: LateRun) -> Result<LateOutcome, RunStoreError>;
}
