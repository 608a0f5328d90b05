//! The facts that schedules depend on, and the follow-up schedules that are still to be made.

use super::{Fault, queue_store::FollowUpId};
use crate::domain::{
    name::{CampaignName, RunId},
    queue::QueueKey,
    run::Run,
    schedule::ScheduleFacts,
};
use async_trait::async_trait;

/// A schedule that is to be made because a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    /// The id.
    pub id: FollowUpId,
    /// The run that ended.
    pub run_id: RunId,
    /// What is to be scheduled.
    pub key: QueueKey,
    /// The context that the run reported.
    pub context: Option<String>,
}

/// The facts for schedules.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait ScheduleStore: Send + Sync {
    /// Returns the facts for the schedule of each key, in the order of the keys. Runs that failed
    /// transiently are not in the history.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn facts(&self, keys: &[QueueKey]) -> Result<Vec<ScheduleFacts>, Fault>;

    /// Returns the last effective run of each codebase in a campaign, by codebase.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn last_effective_runs(&self, campaign: &CampaignName) -> Result<Vec<Run>, Fault>;

    /// Returns the oldest follow-ups that are not settled, at most `limit`. They are settled by
    /// [`QueueStore::enqueue`](super::QueueStore::enqueue) or [`ScheduleStore::drop_follow_ups`].
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn follow_ups(&self, limit: usize) -> Result<Vec<FollowUp>, Fault>;

    /// Settles follow-ups that need no schedule. Absent ids are ignored, so that repeating it is
    /// harmless.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn drop_follow_ups(&self, ids: &[FollowUpId]) -> Result<(), Fault>;
}
