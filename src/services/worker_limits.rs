//! What one worker may use of the service: requests in a second, and runs at the same time.
//!
//! The account counts, which a fleet may share. Counts are kept in this process: of several
//! runners, each allows as much.

use super::ServiceError;
use crate::{domain::worker_limits::MaxOfWorker, ports::ActiveRunStore};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long a worker that has all its runs waits before they are counted again.
const RECOUNT_INTERVAL: Duration = Duration::from_secs(1);
/// The same when it may have less: runs were being claimed while they were counted.
const MIN_RECOUNT_INTERVAL: Duration = Duration::from_millis(100);
/// Over how many seconds unused requests add up.
const BURST_SECONDS: f64 = 2.0;

/// What is known of the runs that a worker holds.
#[derive(Debug, Default, Clone, Copy)]
struct Held {
    /// At most so many are held, those that are being claimed included.
    bound: u64,
    /// So many are being claimed.
    claiming: u64,
    /// The number of claims that were begun so far.
    begun: u64,
    /// Until when it is known that there are as many as may be.
    full_until: Option<Instant>,
}

/// The requests that a worker may still send.
#[derive(Debug, Clone, Copy)]
struct Requests {
    left: f64,
    at: Instant,
}

/// Counts what each worker uses.
pub struct WorkerLimits {
    max: MaxOfWorker,
    active_runs: Arc<dyn ActiveRunStore>,
    held: Mutex<HashMap<String, Held>>,
    requests: Mutex<HashMap<String, Requests>>,
}

/// The place of a run that is being claimed; it is free again unless [`Place::keep`] is called.
pub struct Place {
    limits: Arc<WorkerLimits>,
    worker: String,
    is_kept: bool,
}

impl Place {
    /// Keeps the place: the run was claimed.
    pub fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut all = self.limits.held();
        if let Some(held) = all.get_mut(&self.worker) {
            held.claiming = held.claiming.saturating_sub(1);
            if !self.is_kept {
                held.bound = held.bound.saturating_sub(1);
            }
        }
    }
}

fn too_many(limit: u32, what: &str) -> ServiceError {
    ServiceError::TooManyOfWorker(format!("this worker may have {limit} {what}"))
}

impl WorkerLimits {
    /// Creates the limits; nothing is used yet.
    pub fn new(max: MaxOfWorker, active_runs: Arc<dyn ActiveRunStore>) -> Self {
        Self {
            max,
            active_runs,
            held: Mutex::default(),
            requests: Mutex::default(),
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request of a worker that has logged in.
    ///
    /// # Errors
    ///
    /// [`ServiceError::TooManyOfWorker`] when it sends too many.
    pub fn count_request(&self, worker: &str) -> Result<(), ServiceError> {
        if self.max.requests_per_second == 0 {
            return Ok(());
        }
        let (rate, now) = (f64::from(self.max.requests_per_second), Instant::now());
        let full = Requests {
            left: rate * BURST_SECONDS,
            at: now,
        };
        let mut all = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if !all.contains_key(worker) {
            all.insert(worker.to_owned(), full);
        }
        let Some(requests) = all.get_mut(worker) else {
            return Ok(());
        };
        let more = (now - requests.at).as_secs_f64() * rate;
        requests.left = (requests.left + more).min(full.left);
        requests.at = now;
        if requests.left < 1.0 {
            return Err(too_many(self.max.requests_per_second, "requests a second"));
        }
        requests.left -= 1.0;
        Ok(())
    }

    /// Takes a place for a run without counting the runs, if there is one for sure.
    fn take_place(self: &Arc<Self>, worker: &str) -> Result<Option<Place>, ServiceError> {
        let mut all = self.held();
        let held = all.entry(worker.to_owned()).or_default();
        let max = self.max.runs.into();
        if self.max.runs > 0 && held.bound >= max {
            let is_full = held.full_until.is_some_and(|until| Instant::now() < until);
            return match is_full {
                true => Err(too_many(self.max.runs, "runs at the same time")),
                false => Ok(None),
            };
        }
        held.bound += 1;
        held.claiming += 1;
        held.begun += 1;
        Ok(Some(Place {
            limits: self.clone(),
            worker: worker.to_owned(),
            is_kept: false,
        }))
    }

    /// Takes a place for a run that is to be claimed.
    ///
    /// # Errors
    ///
    /// [`ServiceError::TooManyOfWorker`] when the worker has as many runs as it may have.
    pub async fn place(self: &Arc<Self>, worker: &str) -> Result<Place, ServiceError> {
        if let Some(place) = self.take_place(worker)? {
            return Ok(place);
        }
        let before = self.held().get(worker).copied().unwrap_or_default();
        let count = self.active_runs.count_held_by(worker).await?;
        if let Some(held) = self.held().get_mut(worker) {
            // Each claim that was under way at any time of the count may be missing in it.
            held.bound = count + before.claiming + (held.begun - before.begun);
            let max = u64::from(self.max.runs);
            let interval = match count >= max {
                true => RECOUNT_INTERVAL,
                false => MIN_RECOUNT_INTERVAL,
            };
            held.full_until = (held.bound >= max).then(|| Instant::now() + interval);
        }
        self.take_place(worker)?
            .ok_or_else(|| too_many(self.max.runs, "runs at the same time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::active_runs::MockActiveRunStore;

    fn limits(held: u64) -> Arc<WorkerLimits> {
        let mut active_runs = MockActiveRunStore::new();
        active_runs
            .expect_count_held_by()
            .returning(move |_| Ok(held));
        let max = MaxOfWorker {
            runs: 3,
            requests_per_second: 5,
        };
        Arc::new(WorkerLimits::new(max, Arc::new(active_runs)))
    }

    #[tokio::test(start_paused = true)]
    async fn runs_being_claimed_count() {
        let limits = limits(0);
        let mut places = vec![];
        for _ in 0..3 {
            places.push(limits.place("w1").await.unwrap());
        }
        assert!(limits.place("w1").await.is_err());
        assert!(limits.place("w2").await.is_ok());
        places.pop();
        assert!(limits.place("w1").await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn finished_runs_are_found_by_counting() {
        let limits = limits(1);
        for _ in 0..20 {
            limits.place("w1").await.unwrap().keep();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn full_worker_is_counted_once_a_second() {
        let mut active_runs = MockActiveRunStore::new();
        active_runs
            .expect_count_held_by()
            .times(2)
            .returning(|_| Ok(3));
        let max = MaxOfWorker {
            runs: 3,
            requests_per_second: 0,
        };
        let limits = Arc::new(WorkerLimits::new(max, Arc::new(active_runs)));
        for _ in 0..3 {
            limits.place("w1").await.unwrap().keep();
        }
        for _ in 0..10 {
            assert!(limits.place("w1").await.is_err());
        }
        tokio::time::sleep(RECOUNT_INTERVAL).await;
        assert!(limits.place("w1").await.is_err());
        assert!(limits.count_request("w1").is_ok(), "no limit");
    }

    #[tokio::test(start_paused = true)]
    async fn claims_that_end_while_the_runs_are_counted_are_counted() {
        let mut active_runs = MockActiveRunStore::new();
        let claimed: Arc<Mutex<Vec<Place>>> = Arc::default();
        let ending = claimed.clone();
        // They are claimed after the store has counted, and before that is known here.
        active_runs.expect_count_held_by().returning(move |_| {
            ending.lock().unwrap().drain(..).for_each(Place::keep);
            Ok(0)
        });
        let max = MaxOfWorker {
            runs: 3,
            requests_per_second: 0,
        };
        let limits = Arc::new(WorkerLimits::new(max, Arc::new(active_runs)));
        for _ in 0..3 {
            let place = limits.place("w1").await.unwrap();
            claimed.lock().unwrap().push(place);
        }
        assert!(limits.place("w1").await.is_err(), "3 are held");
        tokio::time::sleep(MIN_RECOUNT_INTERVAL).await;
        assert!(limits.place("w1").await.is_ok(), "all of them have ended");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_limited_by_worker() {
        let limits = limits(0);
        let sent = |worker| {
            (0..20)
                .filter_map(|_| limits.count_request(worker).ok())
                .count()
        };
        assert_eq!(sent("w1"), 10, "a burst of two seconds");
        assert_eq!(sent("w2"), 10);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(sent("w1"), 5);
    }
}
