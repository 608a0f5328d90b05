//! Tells the news that was stored with what it tells. Others being away delays it, and loses none.

use super::leadership::Leader;
use crate::{
    metrics::Metrics,
    ports::{EventBus, Fault, Outbox},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, time::timeout};

/// News told between two looks.
const AT_ONCE: usize = 256;
/// After a call it waits this long for others, to tell them together.
const TOGETHER: Duration = Duration::from_millis(25);
/// Without a call, it still looks this often: other runners on the same stores have news too.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Tells news.
pub struct OutboxPublisher {
    outbox: Arc<dyn Outbox>,
    events: Arc<dyn EventBus>,
    leader: Arc<Leader>,
    metrics: Arc<Metrics>,
    noted: Notify,
}

impl OutboxPublisher {
    /// Not yet running; see [`OutboxPublisher::run`].
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
            noted: Notify::new(),
        }
    }

    /// Says that there is news.
    pub fn wake(&self) {
        self.noted.notify_one();
    }

    /// Tells news for ever.
    pub async fn run(&self) {
        loop {
            drop(timeout(LOOK_EVERY, self.noted.notified()).await);
            if !self.leader.leads() {
                continue;
            }
            tokio::time::sleep(TOGETHER).await;
            if let Err(error) = self.tell_all().await {
                self.metrics.failed("events", "relay");
                tracing::warn!(error = &error as &dyn std::error::Error, "news must wait");
                tokio::time::sleep(AFTER_FAILURE).await;
            }
        }
    }

    async fn tell_all(&self) -> Result<(), Fault> {
        while self.tell().await? == AT_ONCE {}
        Ok(())
    }

    /// Tells what waits, at most a batch, in order; answers how much there was.
    pub async fn tell(&self) -> Result<usize, Fault> {
        let (mut told, mut outcome) = (vec![], Ok(()));
        for news in self.outbox.pending(AT_ONCE).await? {
            outcome = self.events.publish(news.event).await;
            if outcome.is_err() {
                break;
            }
            told.push(news.id);
        }
        if !told.is_empty() {
            self.outbox.mark_published(&told).await?;
        }
        outcome.map(|()| told.len())
    }
}
