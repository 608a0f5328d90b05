//! The queue of pending runs.

use super::Fault;
use crate::domain::{
    codebase::Codebase,
    name::{CampaignName, CodebaseName},
    queue::{Bucket, EnqueueRequest, QueueId, QueueItem, QueueKey},
    schedule::Pair,
    time::Time,
};
use async_trait::async_trait;
use std::collections::BTreeMap;

/// Why a queue operation failed.
#[derive(Debug, thiserror::Error)]
pub enum QueueStoreError {
    /// Nothing can be queued for a codebase that is not stored.
    #[error("no codebase {0}")]
    UnknownCodebase(CodebaseName),
    /// A follow-up was settled by somebody else meanwhile.
    #[error("a follow-up is settled already")]
    AlreadySettled,
    /// The store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Items to be queued in one step.
#[derive(Debug, Clone, PartialEq)]
pub struct EnqueueBatch {
    /// What to queue, in this order.
    pub items: Vec<EnqueueRequest>,
    /// Follow-ups that are settled by it.
    pub settles: Vec<FollowUpId>,
    /// When.
    pub now: Time,
}

/// The id of a noted follow-up.
pub type FollowUpId = u64;

/// Where a wish ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// The item.
    pub queue_id: QueueId,
    /// The bucket that it is in now.
    pub bucket: Bucket,
}

/// Which items a claim may take.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimFilter {
    /// Only this codebase.
    pub codebase: Option<CodebaseName>,
    /// Only this campaign.
    pub campaign: Option<CampaignName>,
    /// Not codebases on these hosts.
    pub avoid_hosts: Vec<String>,
    /// Not these.
    pub except: Vec<QueueKey>,
}

/// An item with its codebase.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct NextItem {
    pub item: QueueItem,
    pub codebase: Codebase,
}

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// The first is 1.
    pub position: u64,
    /// Seconds that the items before it are estimated to take.
    pub wait_time: f64,
}

/// Figures about the queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct QueueStats {
    /// Held items included.
    pub length: u64,
    pub by_bucket: BTreeMap<Bucket, u64>,
    pub by_campaign: BTreeMap<String, u64>,
    /// When the item that waits longest was added; a store may know only the minute.
    pub oldest: Option<Time>,
}

/// The queue. Items are served by bucket, then priority, then id.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait QueueStore: Send + Sync {
    /// Queues all items of the batch and settles its follow-ups, in one step; answers in the order of the batch.
    ///
    /// An item of the same key is updated by [`QueueItem::merge`], and is neither parked nor snoozed any more when that
    /// brings it into an earlier bucket; one that is held right now takes the wish when its run ends. Priorities are relative to the smallest in the queue at that moment.
    ///
    /// # Errors
    /// `UnknownCodebase` when one is not stored, `AlreadySettled` when a follow-up of the batch is not there any more;
    /// nothing is queued then.
    async fn enqueue(&self, batch: EnqueueBatch) -> Result<Vec<Enqueued>, QueueStoreError>;

    /// The item that [`QueueStore::claim`] would take, left alone.
    async fn peek(
        &self,
        filter: &ClaimFilter,
        now: Time,
    ) -> Result<Option<NextItem>, QueueStoreError>;

    /// The first `limit` items in order, held ones included.
    async fn list(&self, limit: usize) -> Result<Vec<QueueItem>, QueueStoreError>;

    /// The place of the first item of a pair; none when it is not queued. Held items count.
    async fn position(&self, pair: &Pair) -> Result<Option<Position>, QueueStoreError>;

    /// The place of an item; none when it is not queued.
    async fn position_of(&self, id: QueueId) -> Result<Option<Position>, QueueStoreError>;

    /// The items of a campaign, and of one codebase if given, that nobody holds, in order.
    async fn waiting(
        &self,
        campaign: &CampaignName,
        codebase: Option<CodebaseName>,
    ) -> Result<Vec<QueueItem>, QueueStoreError>;

    /// Takes items off the queue, except those that somebody holds; answers those that it took. Absent ids are ignored.
    async fn remove(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, QueueStoreError>;

    /// Figures.
    async fn stats(&self) -> Result<QueueStats, QueueStoreError>;
}
