//! The queue notifier of the embedded stores: every change happens in this process, so it counts
//! them.

use super::store::Embedded;
use crate::ports::QueueNotifier;
use async_trait::async_trait;

#[async_trait]
impl QueueNotifier for Embedded {
    async fn wait_for_items(&self) -> usize {
        self.availability.take().await
    }
}
