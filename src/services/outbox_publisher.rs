//! Publishes the events in the outbox. While the event bus is away they wait, and none is lost.

use super::leadership::Leader;
use crate::{
    metrics::Metrics,
    ports::{EventBus, Fault, Outbox},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, time::timeout};

/// The number of entries that are read from the outbox and marked in one step.
const BATCH_SIZE: usize = 256;
/// After a wake-up it waits this long for more entries, to publish them together.
const COALESCE_WINDOW: Duration = Duration::from_millis(25);
/// Without a wake-up it polls the outbox this often: other runners on the same stores add entries
/// too.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How long to wait after the event bus or the store failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Publishes outbox entries in order, on one process at a time.
pub struct OutboxPublisher {
    outbox: Arc<dyn Outbox>,
    events: Arc<dyn EventBus>,
    leader: Arc<Leader>,
    metrics: Arc<Metrics>,
    woken: Notify,
}

impl OutboxPublisher {
    /// Creates a publisher that does not run yet; see [`OutboxPublisher::run`].
    pub fn new(
        outbox: Arc<dyn Outbox>,
        events: Arc<dyn EventBus>,
        leader: Arc<Leader>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            outbox,
            events,
            leader,
            metrics,
            woken: Notify::new(),
        }
    }

    /// Wakes the publisher, because the outbox has a new entry.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Publishes entries for ever.
    pub async fn run(&self) {
        loop {
            // A wake-up and the timeout mean the same: look at the outbox.
            drop(timeout(POLL_INTERVAL, self.woken.notified()).await);
            // Two publishers would publish entries twice and out of order.
            if !self.leader.leads() {
                continue;
            }
            tokio::time::sleep(COALESCE_WINDOW).await;
            if let Err(error) = self.publish_all().await {
                self.metrics.failed("events", "relay");
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "events cannot be published; they stay in the outbox"
                );
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }

    async fn publish_all(&self) -> Result<(), Fault> {
        while self.publish_batch().await? == BATCH_SIZE {}
        Ok(())
    }

    /// Publishes one batch of pending entries, in order, and marks those that were published.
    ///
    /// Returns the number of published entries. Delivery is at least once: a crash between
    /// publishing and marking publishes an entry again.
    ///
    /// # Errors
    ///
    /// Returns the first error of the event bus; entries published before it are marked all the
    /// same.
    #[tracing::instrument(name = "services.outbox.publish_batch", level = "debug", skip_all)]
    pub async fn publish_batch(&self) -> Result<usize, Fault> {
        let mut published = vec![];
        let mut result = Ok(());
        for entry in self.outbox.pending(BATCH_SIZE).await? {
            result = self.events.publish(entry.event).await;
            // Later entries must not overtake the one that failed.
            if result.is_err() {
                break;
            }
            published.push(entry.id);
        }
        if !published.is_empty() {
            self.outbox.mark_published(&published).await?;
        }
        result.map(|()| published.len())
    }
}
