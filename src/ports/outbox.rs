//! News that was stored with what it tells, and that nobody has been told yet.

use super::{Event, Fault};
use async_trait::async_trait;

/// The id of a piece of news.
pub type OutboxId = u64;

/// News to be told.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct OutboxEntry {
    pub id: OutboxId,
    pub event: Event,
}

/// News in the order in which it was stored. `RunStore` notes it; whoever tells it settles it after that, so that a
/// crash in between tells it twice rather than never.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Outbox: Send + Sync {
    /// The oldest news that is not settled.
    async fn pending(&self, limit: usize) -> Result<Vec<OutboxEntry>, Fault>;

    /// Settles news. Absent ids are ignored.
    async fn mark_published(&self, ids: &[OutboxId]) -> Result<(), Fault>;
}
