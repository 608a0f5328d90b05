//! The queue store, which holds the pending runs.

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
    /// Another runner settled a follow-up of the batch in the meantime.
    #[error("a follow-up is settled already")]
    AlreadySettled,
    /// The store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// Items to be enqueued in one step.
#[derive(Debug, Clone, PartialEq)]
pub struct EnqueueBatch {
    /// The requests, in the order in which they are applied.
    pub items: Vec<EnqueueRequest>,
    /// The follow-ups that the batch settles. The requests of such a batch are schedules that follow
    /// runs, see [`QueueStore::enqueue`].
    pub settles: Vec<FollowUpId>,
    /// The time of the batch.
    pub now: Time,
}

/// The id of a stored follow-up.
pub type FollowUpId = u64;

/// Where a request was enqueued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// The id of the item.
    pub queue_id: QueueId,
    /// The bucket that the item is in now.
    pub bucket: Bucket,
}

/// Which items may be claimed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimFilter {
    /// Only this codebase.
    pub codebase: Option<CodebaseName>,
    /// Only this campaign.
    pub campaign: Option<CampaignName>,
    /// No codebase on these hosts.
    pub avoid_hosts: Vec<String>,
    /// None of these items.
    pub except: Vec<QueueKey>,
}

/// An item with its codebase.
#[derive(Debug, Clone, PartialEq)]
pub struct NextItem {
    /// The item.
    pub item: QueueItem,
    /// The codebase of the item.
    pub codebase: Codebase,
}

/// The position of an item in the queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Position {
    /// The position; that of the first item is 1.
    pub position: u64,
    /// The estimated duration, in seconds, of the items before it.
    pub wait_time: f64,
}

/// Statistics of the queue. Claimed items are included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueStats {
    /// The number of items.
    pub length: u64,
    /// The number of items in each bucket.
    pub by_bucket: BTreeMap<Bucket, u64>,
    /// The number of items of each campaign.
    pub by_campaign: BTreeMap<String, u64>,
    /// The time at which the oldest item was added; a store may know only the minute.
    pub oldest: Option<Time>,
}

/// The queue. Its order is by bucket, then priority, then id. All methods may fail with
/// [`QueueStoreError::Fault`].
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait QueueStore: Send + Sync {
    /// Enqueues all items of the batch and settles its follow-ups, in one step. Returns where they
    /// were enqueued, in the order of the batch.
    ///
    /// An item of the same key is updated by [`QueueItem::merge`], and is unparked when that
    /// returns [`Merge::Renewed`](crate::domain::queue::Merge::Renewed). While such an item is
    /// claimed, the request is deferred until its run ends. Priorities are relative to the smallest
    /// in the queue at that moment.
    ///
    /// The facts of a batch that settles follow-ups were read before, so it must not overwrite what
    /// others queued since: it leaves items that are queued or claimed as they are, takes the
    /// commands of the candidates as they are stored at that moment, and skips keys without a
    /// candidate. Only the items that it inserts are returned.
    ///
    /// # Errors
    ///
    /// [`QueueStoreError::UnknownCodebase`] when a codebase is not stored,
    /// [`QueueStoreError::AlreadySettled`] when a follow-up of the batch is settled already;
    /// nothing is enqueued then.
    async fn enqueue(&self, batch: EnqueueBatch) -> Result<Vec<Enqueued>, QueueStoreError>;

    /// Returns the item that [`ActiveRunStore::claim`](super::ActiveRunStore::claim) would claim,
    /// without claiming it.
    ///
    /// # Errors
    ///
    /// [`QueueStoreError::Fault`] when the store fails.
    async fn peek(
        &self,
        filter: &ClaimFilter,
        now: Time,
    ) -> Result<Option<NextItem>, QueueStoreError>;

    /// Returns the first `limit` items in queue order, including claimed ones.
    ///
    /// # Errors
    ///
    /// [`QueueStoreError::Fault`] when the store fails.
    async fn list(&self, limit: usize) -> Result<Vec<QueueItem>, QueueStoreError>;

    /// Returns the position of the first item of a pair; `None` when it is not queued. Claimed
    /// items count.
    ///
    /// # Errors
    ///
    /// [`QueueStoreError::Fault`] when the store fails.
    async fn position(&self, pair: &Pair) -> Result<Option<Position>, QueueStoreError>;

    /// Returns the position of an item; `None` when it is not queued.
    ///
    /// # Errors
    ///
    /// [`QueueStoreError::Fault`] when the store fails.
    async fn position_of(&self, id: QueueId) -> Result<Option<Position>, QueueStoreError>;

    /// Returns the unclaimed items of a campaign, and of one codebase if given, in queue order.
    ///
    /// # Errors
    ///
    /// [`QueueStoreError::Fault`] when the store fails.
    async fn waiting(
        &self,
        campaign: &CampaignName,
        codebase: Option<CodebaseName>,
    ) -> Result<Vec<QueueItem>, QueueStoreError>;

    /// Removes items, except those that are claimed. Returns the ids of those that were removed;
    /// absent ids are ignored.
    ///
    /// # Errors
    ///
    /// [`QueueStoreError::Fault`] when the store fails.
    async fn remove(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, QueueStoreError>;

    /// Returns statistics of the queue.
    ///
    /// # Errors
    ///
    /// [`QueueStoreError::Fault`] when the store fails.
    async fn stats(&self) -> Result<QueueStats, QueueStoreError>;
}
