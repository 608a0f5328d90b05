//! The port that those who wait for items listen to; `notify.rs` brings in other processes.

use super::Postgres;
use crate::ports::QueueNotifier;
use async_trait::async_trait;

#[async_trait]
impl QueueNotifier for Postgres {
    // Without a span: the call lasts as long as nothing happens.
    async fn wait_for_items(&self) -> usize {
        self.tables.availability.take().await
    }
}
