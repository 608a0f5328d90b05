//! Whether there is something to hand out that was not there before, so that those who wait need not ask all the time.

use async_trait::async_trait;

/// Tells of items that may be handed out now. For one listener in each process.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait QueueNotifier: Send + Sync {
    /// Waits until items were opened since the last call, by whichever process, and answers about how many. What opens by
    /// the clock alone is not told.
    async fn wait_for_items(&self) -> usize;
}
