//! Items that are not handed out because of what became of their earlier runs.

use super::Fault;
use crate::domain::{
    queue::{QueueId, QueueItem},
    retry::ItemState,
};
use async_trait::async_trait;

/// A queue item with all that is known of it.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct QueueEntry {
    pub item: QueueItem,
    pub state: ItemState,
}

/// Parked and snoozed items. They keep their place in the queue.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Parking: Send + Sync {
    /// The item of that id.
    async fn entry(&self, id: QueueId) -> Result<Option<QueueEntry>, Fault>;

    /// The parked items after an id, by id.
    async fn parked(&self, after: Option<QueueId>, limit: usize) -> Result<Vec<QueueEntry>, Fault>;

    /// Forgets what is known of items, so that they can be handed out; answers those that were parked or snoozed.
    async fn unpark(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, Fault>;
}
