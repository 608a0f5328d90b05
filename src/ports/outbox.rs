//! The outbox: events that were stored in the same step as the change that they announce, and that
//! are still to be published.

use super::{Event, Fault};
use async_trait::async_trait;

/// The id of an outbox entry.
pub type OutboxId = u64;

/// An event to be published.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxEntry {
    /// The id.
    pub id: OutboxId,
    /// The event.
    pub event: Event,
}

/// The events to be published, in the order in which they were stored.
///
/// [`RunRecorder`](super::RunRecorder) and [`RunStore`](super::RunStore) add entries. A publisher
/// marks an entry only after it published the event, so that a crash in between publishes it twice
/// rather than never.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Outbox: Send + Sync {
    /// Returns the oldest entries that are not published, at most `limit`, in order.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn pending(&self, limit: usize) -> Result<Vec<OutboxEntry>, Fault>;

    /// Deletes entries that were published. Absent ids are ignored, so that repeating it is
    /// harmless.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn mark_published(&self, ids: &[OutboxId]) -> Result<(), Fault>;
}
