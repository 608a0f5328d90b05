//! Publishes the status to the other services after every claim and release. Changes in quick
//! succession are published once, outside the requests that made them.

use super::{Overview, ServiceError};
use crate::ports::{Event, EventBus};
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// The minimum time between two publications; changes within it are published together.
const COALESCE_WINDOW: Duration = Duration::from_millis(100);
/// How long to wait after the event bus failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Publishes the status when it has changed.
pub struct StatusPublisher {
    overview: Arc<Overview>,
    events: Arc<dyn EventBus>,
    changed: Notify,
}

impl StatusPublisher {
    /// Creates a publisher that does not run yet; see [`StatusPublisher::run`].
    pub fn new(overview: Arc<Overview>, events: Arc<dyn EventBus>) -> Self {
        Self {
            overview,
            events,
            changed: Notify::new(),
        }
    }

    /// Notes that the status has changed.
    pub fn queue_changed(&self) {
        self.changed.notify_one();
    }

    /// Publishes the status whenever it has changed, for ever.
    pub async fn run(&self) {
        loop {
            self.changed.notified().await;
            if let Err(error) = self.publish().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the status cannot be published"
                );
                tokio::time::sleep(RETRY_DELAY).await;
                // The change is still to be published, even when no other follows.
                self.queue_changed();
            }
            tokio::time::sleep(COALESCE_WINDOW).await;
        }
    }

    #[tracing::instrument(name = "services.status.publish", level = "debug", skip_all)]
    async fn publish(&self) -> Result<(), ServiceError> {
        let status = self.overview.status().await?;
        Ok(self.events.publish(Event::Queue(Box::new(status))).await?)
    }
}
