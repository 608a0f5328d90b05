//! Events within this process, for deployments where no other service listens.

use crate::ports::{Event, EventBus, Fault};
use async_trait::async_trait;
use tokio::sync::broadcast;

/// How many events a slow listener may lag behind before it misses some.
const CHANNEL_CAPACITY: usize = 1024;

/// Publishes events to listeners of this process.
#[derive(Debug, Clone)]
pub struct InProcessEvents {
    sender: broadcast::Sender<Event>,
}

impl Default for InProcessEvents {
    fn default() -> Self {
        Self {
            sender: broadcast::channel(CHANNEL_CAPACITY).0,
        }
    }
}

impl InProcessEvents {
    /// Returns a receiver of all events from now on.
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }
}

#[async_trait]
impl EventBus for InProcessEvents {
    async fn publish(&self, event: Event) -> Result<(), Fault> {
        // An error means that nobody listens, which is no failure.
        drop(self.sender.send(event));
        Ok(())
    }

    async fn health_check(&self) -> Result<(), Fault> {
        Ok(())
    }
}
