//! After a run ends, its candidate is scheduled again. The wish is stored with the run; this carries it out, many at a
//! time, and picks up what a crash left.

use super::{ServiceError, leadership::Leader};
use crate::{
    domain::{
        name::CodebaseName,
        queue::{Bucket, QueueKey},
        schedule::{ScheduleFacts, ScheduleRequest, regular},
    },
    ports::{
        Clock, QueueStore, QueueStoreError, ScheduleStore, queue_store::EnqueueBatch,
        schedule_store::FollowUp,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Notify, time::timeout};

const REQUESTER: &str = "after run schedule";
/// Follow-ups carried out in one step.
const AT_ONCE: usize = 256;
/// Without a call, it still looks this often: other runners on the same stores have follow-ups too.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After a call it waits this long for others, to carry them out together.
const TOGETHER: Duration = Duration::from_millis(25);
const AFTER_FAILURE: Duration = Duration::from_secs(1);

/// Carries out follow-ups.
pub struct FollowUps {
    schedules: Arc<dyn ScheduleStore>,
    queue: Arc<dyn QueueStore>,
    clock: Arc<dyn Clock>,
    leader: Arc<Leader>,
    noted: Notify,
}

impl FollowUps {
    /// Not yet running; see [`FollowUps::run`].
    pub fn new(
        schedules: Arc<dyn ScheduleStore>,
        queue: Arc<dyn QueueStore>,
        clock: Arc<dyn Clock>,
        leader: Arc<Leader>,
    ) -> Self {
        Self {
            schedules,
            queue,
            clock,
            leader,
            noted: Notify::new(),
        }
    }

    /// Says that there is one more to carry out.
    pub fn wake(&self) {
        self.noted.notify_one();
    }

    /// Carries out follow-ups for ever.
    pub async fn run(&self) {
        loop {
            if !self.leader.leads() {
                tokio::time::sleep(TOGETHER).await;
                continue;
            }
            match self.carry_out().await {
                Ok(AT_ONCE) => {}
                // Called or not, it looks again.
                Ok(_) => {
                    drop(timeout(LOOK_EVERY, self.noted.notified()).await);
                    tokio::time::sleep(TOGETHER).await;
                }
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "follow-ups must wait"
                    );
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Carries out those that wait, at most a batch; answers how many there were.
    pub async fn carry_out(&self) -> Result<usize, ServiceError> {
        let waiting = self.schedules.follow_ups(AT_ONCE).await?;
        if waiting.is_empty() {
            return Ok(0);
        }
        let keys: Vec<QueueKey> = waiting
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
            Some(regular(facts.candidate.as_ref()?, facts, request, now).0)
        };
        let items = waiting.iter().zip(&facts).filter_map(schedule).collect();
        let settles: Vec<_> = waiting.iter().map(|follow_up| follow_up.id).collect();
        match self
            .queue
            .enqueue(EnqueueBatch {
                items,
                settles: settles.clone(),
                now,
            })
            .await
        {
            // Nothing can be queued for what is gone.
            Err(QueueStoreError::UnknownCodebase(name)) => {
                self.drop_those_of(&name, waiting).await?
            }
            // Another runner was faster.
            Err(QueueStoreError::AlreadySettled) => {}
            queued => drop(queued?),
        }
        Ok(settles.len())
    }

    async fn drop_those_of(
        &self,
        gone: &CodebaseName,
        waiting: Vec<FollowUp>,
    ) -> Result<(), ServiceError> {
        tracing::warn!(codebase = %gone, "drops the follow-ups of a codebase that is gone");
        let ids: Vec<_> = waiting
            .into_iter()
            .filter(|follow_up| follow_up.key.codebase == *gone)
            .map(|follow_up| follow_up.id)
            .collect();
        Ok(self.schedules.drop_follow_ups(&ids).await?)
    }
}
