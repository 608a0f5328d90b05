//! Items that are not assigned because of the outcome of their earlier runs.

use super::Fault;
use crate::domain::{
    queue::{QueueId, QueueItem},
    retry::ItemState,
};
use async_trait::async_trait;

/// A queue item with its retry state.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueEntry {
    /// The item.
    pub item: QueueItem,
    /// Its retry state.
    pub state: ItemState,
}

/// Parked and snoozed items. They keep their position in the queue.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Parking: Send + Sync {
    /// Returns the item of that id, whether it is parked, snoozed or neither.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn entry(&self, id: QueueId) -> Result<Option<QueueEntry>, Fault>;

    /// Returns a page of the parked items, by id: at most `limit` of those with an id above
    /// `after`.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn parked(&self, after: Option<QueueId>, limit: usize) -> Result<Vec<QueueEntry>, Fault>;

    /// Clears the retry state of items, so that they can be assigned. Returns the ids of those that
    /// were parked or snoozed; absent ids are ignored.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn unpark(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, Fault>;
}
