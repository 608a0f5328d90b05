//! Tells the other services what runs, after every claim and release. However many there are, a moment's changes are
//! told once, off the requests' path.

use super::{CoordinatorConfig, ServiceError, overview};
use crate::ports::{ActiveRunStore, Clock, Event, EventBus};
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// Changes within this time are told together.
const TOGETHER: Duration = Duration::from_millis(100);
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Sends the status when it changed.
pub struct StatusPublisher {
    active_runs: Arc<dyn ActiveRunStore>,
    events: Arc<dyn EventBus>,
    clock: Arc<dyn Clock>,
    config: Arc<CoordinatorConfig>,
    changed: Notify,
}

impl StatusPublisher {
    /// Not yet running; see [`StatusPublisher::run`].
    pub fn new(
        active_runs: Arc<dyn ActiveRunStore>,
        events: Arc<dyn EventBus>,
        clock: Arc<dyn Clock>,
        config: Arc<CoordinatorConfig>,
    ) -> Self {
        Self {
            active_runs,
            events,
            clock,
            config,
            changed: Notify::new(),
        }
    }

    /// Notes that the status changed.
    pub fn queue_changed(&self) {
        self.changed.notify_one();
    }

    /// Sends the status whenever it changed, for ever.
    pub async fn run(&self) {
        loop {
            self.changed.notified().await;
            if let Err(error) = self.tell().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the status cannot be told"
                );
                tokio::time::sleep(AFTER_FAILURE).await;
                self.queue_changed();
            }
            tokio::time::sleep(TOGETHER).await;
        }
    }

    async fn tell(&self) -> Result<(), ServiceError> {
        let status =
            overview::status(self.active_runs.as_ref(), &self.config, self.clock.now()).await?;
        Ok(self.events.publish(Event::Queue(Box::new(status))).await?)
    }
}
