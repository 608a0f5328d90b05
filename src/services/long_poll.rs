//! Workers that wait for work with their request open, so that an item is handed out as soon as it is there.
//!
//! They wait in line, those that want the same in one. When items are opened, as many from the front of each line look;
//! whoever finds something has the next one look, and whoever finds nothing goes to the end.

use super::{
    ServiceError,
    assign::{AssignRequest, Assigner},
};
use crate::{
    domain::{assignment::Assignment, pause::Scope},
    ports::{Clock, PauseStore, QueueNotifier},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// The longest that a request is held.
pub const LONGEST: Duration = Duration::from_secs(50);
/// What opens by the clock, and what was not heard of, is found this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Those that look at the same time, at the most.
const MOST_AT_ONCE: usize = 64;

/// What those in one line want: a codebase, a campaign.
type Wish = (Option<String>, Option<String>);

/// Hands out work, now or as soon as there is some.
pub struct LongPoll {
    assigner: Arc<Assigner>,
    queue_notifier: Arc<dyn QueueNotifier>,
    pauses: Arc<dyn PauseStore>,
    clock: Arc<dyn Clock>,
    lines: Mutex<HashMap<Wish, Weak<Notify>>>,
    /// Nothing is handed out any more.
    ending: CancellationToken,
}

impl LongPoll {
    /// Not yet told of openings; see [`LongPoll::run`].
    pub fn new(
        assigner: Arc<Assigner>,
        queue_notifier: Arc<dyn QueueNotifier>,
        pauses: Arc<dyn PauseStore>,
        clock: Arc<dyn Clock>,
        ending: CancellationToken,
    ) -> Self {
        Self {
            assigner,
            queue_notifier,
            pauses,
            clock,
            lines: Mutex::default(),
            ending,
        }
    }

    /// Has waiting workers look when items are opened, for ever.
    pub async fn run(&self) {
        loop {
            let opened = tokio::time::timeout(LOOK_EVERY, self.queue_notifier.wait_for_items())
                .await
                .unwrap_or(1);
            for line in self.lines() {
                (0..opened.min(MOST_AT_ONCE)).for_each(|_| line.notify_one());
            }
        }
    }

    fn lines(&self) -> Vec<Arc<Notify>> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|_, line| line.strong_count() > 0);
        lines.values().filter_map(Weak::upgrade).collect()
    }

    fn line(&self, request: &AssignRequest) -> Arc<Notify> {
        let wish = (request.codebase.clone(), request.campaign.clone());
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(line) = lines.get(&wish).and_then(Weak::upgrade) {
            return line;
        }
        let line = Arc::default();
        lines.insert(wish, Arc::downgrade(&line));
        line
    }

    /// Hands out the next item, waiting for one up to so long.
    pub async fn assign(
        &self,
        request: AssignRequest,
        wait: Duration,
    ) -> Result<Box<Assignment>, ServiceError> {
        if self.ending.is_cancelled() {
            return Err(ServiceError::Stopping);
        }
        if wait.is_zero() {
            return self.assigner.assign(request).await;
        }
        // On the heap, so that a request that does not wait is not as large as one that does.
        let waiting = Box::pin(self.wait(request, Instant::now() + wait.min(LONGEST)));
        tokio::select! {
            assigned = waiting => assigned,
            () = self.ending.cancelled() => Err(ServiceError::Stopping),
        }
    }

    async fn wait(
        &self,
        request: AssignRequest,
        end: Instant,
    ) -> Result<Box<Assignment>, ServiceError> {
        let line = self.line(&request);
        let (mut called, mut paused) = (false, false);
        loop {
            // Out of the line, for those who can take something.
            while paused {
                sleep(LOOK_EVERY.min(end - Instant::now())).await;
                paused = Instant::now() < end && self.is_paused(&request).await?;
            }
            // In line before it looks: what is opened after the look calls somebody.
            let turn = line.notified();
            tokio::pin!(turn);
            turn.as_mut().enable();
            let nothing = match self.assigner.assign(request.clone()).await {
                Ok(assignment) => {
                    line.notify_one();
                    return Ok(assignment);
                }
                Err(nothing @ (ServiceError::QueueEmpty | ServiceError::RateLimited(_))) => nothing,
                Err(error) => return Err(error),
            };
            if Instant::now() >= end {
                return Err(nothing);
            }
            paused = called && self.is_paused(&request).await?;
            called = !paused;
            if paused {
                // Whoever called it meant somebody else.
                line.notify_one();
            } else if timeout_at(end, turn).await.is_err() {
                return Err(nothing);
            }
        }
    }

    async fn is_paused(&self, request: &AssignRequest) -> Result<bool, ServiceError> {
        let Some(worker) = &request.claimant.worker else {
            return Ok(false);
        };
        let scope = Scope::Worker(worker.clone());
        Ok(self
            .pauses
            .pauses(self.clock.now())
            .await?
            .iter()
            .any(|pause| pause.scope == scope))
    }
}
