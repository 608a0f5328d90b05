//! What schedules depend on, and the follow-up schedules that are still to be made.

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
#[expect(missing_docs)]
pub struct FollowUp {
    pub id: FollowUpId,
    pub run_id: RunId,
    pub key: QueueKey,
    /// What the run reported.
    pub context: Option<String>,
}

/// Facts for schedules.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait ScheduleStore: Send + Sync {
    /// What the schedule of each key depends on, in the order of the keys. Transient runs are not in the history.
    async fn facts(&self, keys: &[QueueKey]) -> Result<Vec<ScheduleFacts>, Fault>;

    /// The last effective runs of a campaign's pairs, by codebase.
    async fn last_effective_runs(&self, campaign: &CampaignName) -> Result<Vec<Run>, Fault>;

    /// The oldest follow-ups that are not settled. They are settled by `QueueStore::enqueue` or `drop_follow_ups`.
    async fn follow_ups(&self, limit: usize) -> Result<Vec<FollowUp>, Fault>;

    /// Settles follow-ups that need no schedule. Absent ids are ignored.
    async fn drop_follow_ups(&self, ids: &[FollowUpId]) -> Result<(), Fault>;
}
