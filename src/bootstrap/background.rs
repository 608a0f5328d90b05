//! The tasks that run beside requests: publishers, follow-ups, the watcher, the mirror and the
//! drainer.

use crate::{
    adapters::{fallback::Drainer, redis::ClaimMirror},
    metrics::Metrics,
    services::{
        audit::Audit, follow_up::FollowUps, leadership::Leader, long_poll::LongPoll,
        outbox_publisher::OutboxPublisher, status_publisher::StatusPublisher, watch::Watcher,
    },
};
use std::{future::Future, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

/// The delay before a background task that has died is restarted.
const RESTART_DELAY: Duration = Duration::from_secs(1);

/// The tasks that run until the process ends.
pub(super) struct Background {
    /// Publishes the status of active runs.
    pub(super) status_publisher: Arc<StatusPublisher>,
    /// Schedules what follows a run.
    pub(super) follow_ups: Arc<FollowUps>,
    /// Takes part in the leader election.
    pub(super) leader: Arc<Leader>,
    /// Publishes the outbox.
    pub(super) outbox_publisher: Arc<OutboxPublisher>,
    /// Watches active runs.
    pub(super) watcher: Arc<Watcher>,
    /// Serves workers that wait for work.
    pub(super) long_poll: Arc<LongPoll>,
    /// Reconciles the mirror in Redis.
    pub(super) claim_mirror: Option<Arc<ClaimMirror>>,
    /// Moves files from the fallback directory.
    pub(super) drainer: Option<Arc<Drainer>>,
    /// Removes old entries of the audit log.
    pub(super) audit: Arc<Audit>,
}

/// Runs a task until `end` is cancelled. Tasks never return, so one that does has panicked: it is
/// logged as a defect and restarted.
fn supervise<F>(
    name: &'static str,
    end: CancellationToken,
    metrics: Arc<Metrics>,
    start: impl Fn() -> F + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        while !end.is_cancelled() {
            let mut task = tokio::spawn(start());
            tokio::select! {
                () = end.cancelled() => return task.abort(),
                died = &mut task => {
                    tracing::error!(
                        task = name,
                        ?died,
                        "a background task has died and is restarted"
                    );
                    metrics.failed("task", name);
                }
            }
            tokio::time::sleep(RESTART_DELAY).await;
        }
    });
}

impl Background {
    /// Starts all tasks.
    pub(super) fn start(self, end: &CancellationToken, metrics: &Arc<Metrics>) {
        let Self {
            status_publisher,
            follow_ups,
            leader,
            outbox_publisher,
            watcher,
            long_poll,
            claim_mirror,
            drainer,
            audit,
        } = self;
        let metrics = || metrics.clone();
        supervise("status publisher", end.clone(), metrics(), move || {
            let status_publisher = status_publisher.clone();
            async move { status_publisher.run().await }
        });
        supervise("follow-ups", end.clone(), metrics(), move || {
            let follow_ups = follow_ups.clone();
            async move { follow_ups.run().await }
        });
        supervise("leader", end.clone(), metrics(), move || {
            let leader = leader.clone();
            async move { leader.run().await }
        });
        supervise("outbox publisher", end.clone(), metrics(), move || {
            let outbox_publisher = outbox_publisher.clone();
            async move { outbox_publisher.run().await }
        });
        supervise("watcher", end.clone(), metrics(), move || {
            watcher.clone().run()
        });
        supervise("long poll", end.clone(), metrics(), move || {
            let long_poll = long_poll.clone();
            async move { long_poll.run().await }
        });
        supervise("audit log", end.clone(), metrics(), move || {
            let audit = audit.clone();
            async move { audit.run().await }
        });
        if let Some(claim_mirror) = claim_mirror {
            supervise("claim mirror", end.clone(), metrics(), move || {
                let claim_mirror = claim_mirror.clone();
                async move { claim_mirror.run().await }
            });
        }
        if let Some(drainer) = drainer {
            supervise("drainer", end.clone(), metrics(), move || {
                let drainer = drainer.clone();
                async move { drainer.run().await }
            });
        }
    }
}
