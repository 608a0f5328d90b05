//! Notifications of items that became available, so that long polls need not query the queue all
//! the time.

use async_trait::async_trait;

/// Notifies one listener in each process of items that became available.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait QueueNotifier: Send + Sync {
    /// Waits until items became available since the last call, through any process, and returns
    /// their approximate number. Items that become available by the passing of time alone, such as
    /// at the end of a snooze, are not notified.
    async fn wait_for_items(&self) -> usize;
}
