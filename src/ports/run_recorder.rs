//! Recording runs: the one step in which a claim becomes a stored run.

use super::RunStoreError;
use crate::domain::{retry::Disposition, run::Run, time::Time};
use async_trait::async_trait;

/// A run to be stored.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct NewRun {
    pub run: Run,
    /// The token of its claim.
    pub token: String,
    pub now: Time,
    /// What becomes of its queue item.
    pub disposition: Disposition,
    /// Only while the worker's last sign of life is this one.
    pub unless_seen_after: Option<Time>,
    /// Whether the worker is to blame; its failures in a row are counted. None: neither way.
    pub worker_at_fault: Option<bool>,
}

/// A result that came after the runner had given the run up.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct LateRun {
    pub run: Run,
    pub now: Time,
}

/// What became of a late result.
#[derive(Debug, Clone, PartialEq)]
pub enum LateOutcome {
    /// It took the place of the run that was given up, and is the item's.
    Replaced,
    /// It took the place of that run; the item was run again meanwhile, or is now, and that is another result.
    ReplacedButRequeued,
    /// The run of that id was not given up; this is it.
    NotGivenUp(Box<Run>),
}

/// What became of a run that was to be stored.
#[derive(Debug, Clone, PartialEq)]
pub enum Recorded {
    /// It is stored.
    Stored,
    /// A run of that id was stored before; this is it.
    AlreadyStored(Box<Run>),
}

/// Records finished runs.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait RunRecorder: Send + Sync {
    /// Stores a run in one step: the run with its change set, branches and build; its claim ends; the news of it is noted.
    /// By its fate, its queue item goes, a follow-up schedule is noted and a wish that waited for the item is queued; or the
    /// item is free again, in its own place, and takes the wish. A run of that id that is there already stays as it is and is
    /// answered.
    ///
    /// # Errors
    /// `ClaimLost` when the token is stale, or the worker was seen after the time given, and there is no run of that id.
    /// `UnknownWorker` when the run names a worker without an account, `Refused` when it breaks another rule of the store.
    /// Nothing is changed then.
    async fn record(&self, new: NewRun) -> Result<Recorded, RunStoreError>;

    /// Puts a late result in the place of the run of that id, if the runner gave that up, and notes the news. Unless its item
    /// was handed out again since, it is as if it had been recorded in time: the item goes, a follow-up is noted.
    ///
    /// # Errors
    /// `ClaimLost` when there is no run of that id; `UnknownWorker` and `Refused` as for `record`.
    async fn record_late(&self, late: LateRun) -> Result<LateOutcome, RunStoreError>;
}
