//! Long polls: workers wait for work with their request open, so that an item is assigned as soon
//! as it is available.
//!
//! Requests for the same codebase and campaign wait in one first-in-first-out queue, a [`Notify`].
//! When items become available, as many waiters at the front of each queue are woken and try to
//! claim. One that gets an item wakes the next, because there may be more; one that gets none waits
//! at the end again.

use super::{
    ServiceError,
    assign::{AssignRequest, Assigner},
};
use crate::{
    domain::{
        active_run::Claimant,
        assignment::Assignment,
        pause::{Pause, Scope},
    },
    ports::{Clock, Fault, PauseStore, QueueNotifier},
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

/// The longest time that a request is held.
pub const MAX_WAIT: Duration = Duration::from_secs(50);
/// How often one waiter is woken without a notification: it finds items whose snooze or backoff
/// ended, and those whose notification was lost.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// How old the pauses may be by which a worker is shown why it is assigned nothing.
const PAUSES_MAX_AGE: Duration = Duration::from_millis(500);
/// The maximum number of waiters of one queue that are woken at the same time.
const MAX_CONCURRENT_CLAIMS: usize = 64;

/// What the waiters in one queue wait for: a codebase and a campaign, `None` meaning any.
type WaitKey = (Option<String>, Option<String>);

/// Assigns items, now or as soon as one is available.
pub struct LongPoll {
    assigner: Arc<Assigner>,
    queue_notifier: Arc<dyn QueueNotifier>,
    pauses: Arc<dyn PauseStore>,
    clock: Arc<dyn Clock>,
    /// The queues of waiters, each of which lives as long as somebody waits in it.
    waiters: Mutex<HashMap<WaitKey, Weak<Notify>>>,
    /// The pauses as they were a moment ago.
    known_pauses: tokio::sync::Mutex<Option<(Instant, Arc<[Pause]>)>>,
    /// Cancelled when the process stops, and nothing is assigned any more.
    ending: CancellationToken,
}

/// Returns which of the pauses keeps a worker from being assigned anything, and its reason.
fn pause_among(pauses: &[Pause], claimant: &Claimant) -> Option<String> {
    let own = pauses.iter().find(|pause| pause.is_of(claimant));
    let everything = || pauses.iter().find(|pause| pause.scope == Scope::All);
    let paused = |what: &str, pause: &Pause| format!("{what} is paused: {}", pause.reason);
    own.map(|pause| paused("this worker", pause))
        .or_else(|| everything().map(|pause| paused("everything", pause)))
}

impl LongPoll {
    /// Creates a long poll that is not notified yet; see [`LongPoll::run`].
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
            waiters: Mutex::default(),
            known_pauses: tokio::sync::Mutex::default(),
            ending,
        }
    }

    /// Wakes waiters when items become available, for ever.
    pub async fn run(&self) {
        loop {
            let available =
                tokio::time::timeout(POLL_INTERVAL, self.queue_notifier.wait_for_items())
                    .await
                    .unwrap_or(1);
            for queue in self.all_waiters() {
                (0..available.min(MAX_CONCURRENT_CLAIMS)).for_each(|_| queue.notify_one());
            }
        }
    }

    fn all_waiters(&self) -> Vec<Arc<Notify>> {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters.retain(|_, queue| queue.strong_count() > 0);
        waiters.values().filter_map(Weak::upgrade).collect()
    }

    fn waiters_of(&self, request: &AssignRequest) -> Arc<Notify> {
        let key = (request.codebase.clone(), request.campaign.clone());
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = waiters.get(&key).and_then(Weak::upgrade) {
            return queue;
        }
        let queue = Arc::default();
        waiters.insert(key, Arc::downgrade(&queue));
        queue
    }

    /// Assigns the next item, waiting for one for at most `wait` and [`MAX_WAIT`].
    ///
    /// # Errors
    ///
    /// [`ServiceError::Stopping`] when the process stops; otherwise the errors of
    /// [`Assigner::assign`], [`ServiceError::QueueEmpty`] and [`ServiceError::RateLimited`] only at
    /// the end of the wait.
    #[tracing::instrument(
        name = "services.long_poll.assign",
        level = "debug",
        skip_all,
        fields(worker = request.claimant.worker.as_deref(), wait_seconds = wait.as_secs())
    )]
    pub async fn assign(
        &self,
        request: AssignRequest,
        wait: Duration,
    ) -> Result<Box<Assignment>, ServiceError> {
        if self.ending.is_cancelled() {
            return Err(ServiceError::Stopping);
        }
        let claimant = request.claimant.clone();
        let assigned = if wait.is_zero() {
            self.assigner.assign(request).await
        } else {
            // Boxed, so that the future of a request that does not wait stays small.
            let waiting = Box::pin(self.wait(request, Instant::now() + wait.min(MAX_WAIT)));
            tokio::select! {
                assigned = waiting => assigned,
                () = self.ending.cancelled() => Err(ServiceError::Stopping),
            }
        };
        match assigned {
            Err(ServiceError::QueueEmpty) => Err(self.reason_for_nothing(&claimant).await),
            assigned => assigned,
        }
    }

    /// Returns why a worker is assigned nothing: a pause of its own or of everything, or an empty
    /// queue.
    async fn reason_for_nothing(&self, claimant: &Claimant) -> ServiceError {
        match self.pause_of(claimant).await {
            Ok(Some(reason)) => ServiceError::WorkerPaused(reason),
            Ok(None) => ServiceError::QueueEmpty,
            Err(fault) => fault.into(),
        }
    }

    /// Returns which pause keeps a worker from being assigned anything, and its reason.
    async fn pause_of(&self, claimant: &Claimant) -> Result<Option<String>, Fault> {
        if pause_among(&self.recent_pauses().await?, claimant).is_none() {
            return Ok(None);
        }
        // Not from what is known from before: the pause may have ended since.
        let pauses = self.pauses.pauses(self.clock.now()).await?;
        Ok(pause_among(&pauses, claimant))
    }

    /// Returns the pauses, at most [`PAUSES_MAX_AGE`] old: thousands of idle workers need them.
    async fn recent_pauses(&self) -> Result<Arc<[Pause]>, Fault> {
        let mut known = self.known_pauses.lock().await;
        if let Some((since, pauses)) = known.as_ref()
            && since.elapsed() < PAUSES_MAX_AGE
        {
            return Ok(pauses.clone());
        }
        let pauses: Arc<[Pause]> = self.pauses.pauses(self.clock.now()).await?.into();
        *known = Some((Instant::now(), pauses.clone()));
        Ok(pauses)
    }

    async fn wait(
        &self,
        request: AssignRequest,
        end: Instant,
    ) -> Result<Box<Assignment>, ServiceError> {
        let waiters = self.waiters_of(&request);
        let (mut woken, mut paused) = (false, false);
        loop {
            // A paused worker does not wait in the queue: it would use up notifications that a
            // worker which may claim something needs.
            while paused {
                sleep(POLL_INTERVAL.min(end - Instant::now())).await;
                paused = Instant::now() < end && self.is_paused(&request).await?;
            }
            // Enqueued before the claim is tried: an item that becomes available after the attempt
            // must wake a waiter, or it would lie there until the next poll.
            let notified = waiters.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let nothing = match self.assigner.assign(request.clone()).await {
                Ok(assignment) => {
                    waiters.notify_one();
                    return Ok(assignment);
                }
                Err(nothing @ (ServiceError::QueueEmpty | ServiceError::RateLimited(_))) => nothing,
                Err(error) => {
                    if let ServiceError::TooManyOfWorker(_) = error {
                        // Others may have what this one may not.
                        waiters.notify_one();
                    }
                    return Err(error);
                }
            };
            if Instant::now() >= end {
                return Err(nothing);
            }
            paused = woken && self.is_paused(&request).await?;
            woken = !paused;
            if paused {
                // The notification that woke this waiter is passed on to one that is not paused.
                waiters.notify_one();
            } else if timeout_at(end, notified).await.is_err() {
                return Err(nothing);
            }
        }
    }

    async fn is_paused(&self, request: &AssignRequest) -> Result<bool, ServiceError> {
        Ok(self
            .pauses
            .pauses(self.clock.now())
            .await?
            .iter()
            .any(|pause| pause.is_of(&request.claimant)))
    }
}
