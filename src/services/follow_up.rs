//! Follow-ups: after a run ends, its candidate is scheduled again. The follow-up is stored in the
//! same step as the run; this processes follow-ups in batches, including those that a crash left.

use super::{ServiceError, leadership::Leader};
use crate::{
    domain::{
        interval::IntervalRules,
        name::CodebaseName,
        queue::{Bucket, EnqueueRequest, QueueKey},
        schedule::{ScheduleFacts, ScheduleRequest, regular},
    },
    ports::{
        Clock, QueueStore, QueueStoreError, ScheduleStore, queue_store::EnqueueBatch,
        schedule_store::FollowUp,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, time::timeout};

/// The requester of the items that follow-ups enqueue.
const REQUESTER: &str = "after run schedule";
/// The number of follow-ups that are processed in one step.
const BATCH_SIZE: usize = 256;
/// Without a wake-up it polls this often: other runners on the same stores add follow-ups too.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// After a wake-up it waits this long for more follow-ups, to process them together.
const COALESCE_WINDOW: Duration = Duration::from_millis(25);
/// How long to wait after the store failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Processes follow-ups, on one process at a time. Runs that ended alike are followed at growing
/// intervals.
pub struct FollowUps {
    schedules: Arc<dyn ScheduleStore>,
    queue: Arc<dyn QueueStore>,
    clock: Arc<dyn Clock>,
    leader: Arc<Leader>,
    intervals: IntervalRules,
    woken: Notify,
}

impl FollowUps {
    /// Creates a processor that does not run yet; see [`FollowUps::run`].
    pub fn new(
        schedules: Arc<dyn ScheduleStore>,
        queue: Arc<dyn QueueStore>,
        clock: Arc<dyn Clock>,
        leader: Arc<Leader>,
        intervals: IntervalRules,
    ) -> Self {
        Self {
            schedules,
            queue,
            clock,
            leader,
            intervals,
            woken: Notify::new(),
        }
    }

    /// Wakes the processor, because there is a new follow-up.
    pub fn wake(&self) {
        self.woken.notify_one();
    }

    /// Processes follow-ups for ever.
    pub async fn run(&self) {
        loop {
            if !self.leader.leads() {
                tokio::time::sleep(COALESCE_WINDOW).await;
                continue;
            }
            match self.run_batch().await {
                // A full batch: there may be more.
                Ok(BATCH_SIZE) => {}
                // A wake-up and the timeout mean the same: look for follow-ups.
                Ok(_) => {
                    drop(timeout(POLL_INTERVAL, self.woken.notified()).await);
                    tokio::time::sleep(COALESCE_WINDOW).await;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "follow-ups cannot be processed; they stay in the store"
                    );
                    tokio::time::sleep(RETRY_DELAY).await;
                }
            }
        }
    }

    /// Processes one batch of pending follow-ups, and returns how many there were.
    ///
    /// A follow-up of a key without a candidate is settled without a schedule.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Fault`] when the store fails; the follow-ups stay pending then.
    #[tracing::instrument(name = "services.follow_up.run_batch", level = "debug", skip_all)]
    pub async fn run_batch(&self) -> Result<usize, ServiceError> {
        let pending = self.schedules.follow_ups(BATCH_SIZE).await?;
        if pending.is_empty() {
            return Ok(0);
        }
        let keys: Vec<QueueKey> = pending
            .iter()
            .map(|follow_up| follow_up.key.clone())
            .collect();
        let facts = self.schedules.facts(&keys).await?;
        let now = self.clock.now();
        let schedule = |(follow_up, facts): (&FollowUp, &ScheduleFacts)| {
            let context = follow_up.context.clone();
            let request = ScheduleRequest {
                bucket: Bucket::Default,
                refresh: false,
                requester: REQUESTER.to_owned(),
                context,
            };
            let enqueue = regular(facts.candidate.as_ref()?, facts, request, now).0;
            let interval = self.intervals.interval(&facts.history);
            Some(EnqueueRequest {
                interval: interval.filter(|interval| interval.until > now),
                ..enqueue
            })
        };
        let items = pending.iter().zip(&facts).filter_map(schedule).collect();
        let settles: Vec<_> = pending.iter().map(|follow_up| follow_up.id).collect();
        match self
            .queue
            .enqueue(EnqueueBatch {
                items,
                settles: settles.clone(),
                now,
            })
            .await
        {
            // The batch is enqueued as a whole or not at all: without those of the deleted
            // codebase, the next batch succeeds.
            Err(QueueStoreError::UnknownCodebase(name)) => {
                self.drop_follow_ups_of(&name, pending).await?;
            }
            // Another runner led for a moment, and processed the same follow-ups.
            Err(QueueStoreError::AlreadySettled) => {}
            queued => drop(queued?),
        }
        Ok(settles.len())
    }

    async fn drop_follow_ups_of(
        &self,
        gone: &CodebaseName,
        pending: Vec<FollowUp>,
    ) -> Result<(), ServiceError> {
        tracing::warn!(
            codebase = %gone,
            "dropping the follow-ups of a codebase that does not exist any more"
        );
        let ids: Vec<_> = pending
            .into_iter()
            .filter(|follow_up| follow_up.key.codebase == *gone)
            .map(|follow_up| follow_up.id)
            .collect();
        Ok(self.schedules.drop_follow_ups(&ids).await?)
    }
}
