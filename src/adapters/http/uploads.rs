//! What is being uploaded now: one upload of a run at a time, and so many bytes in all and by one
//! worker.

use super::error::ApiError;
use crate::{
    domain::{active_run::ActiveRun, name::RunId},
    ports::Fault,
};
use axum::http::{StatusCode, header};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit},
    time::timeout,
};

/// How many uploads with large reports are read at the same time. What is parsed takes many times
/// its size.
const MAX_READERS: usize = 2;
/// After how many seconds a client whose upload is refused may try again.
const RETRY_AFTER_SECONDS: u32 = 5;

#[derive(Debug, Default)]
struct State {
    /// The one place of each run that has an upload.
    runs: HashMap<RunId, Arc<Semaphore>>,
    total: u64,
    by_worker: HashMap<String, u64>,
}

/// The uploads that are being received.
#[derive(Debug)]
pub struct Uploads {
    max_total: u64,
    max_of_worker: u64,
    state: Mutex<State>,
    readers: Semaphore,
}

fn later(detail: &str) -> ApiError {
    ApiError::problem(StatusCode::SERVICE_UNAVAILABLE, detail)
        .with_header(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
}

impl Uploads {
    /// Allows so many bytes of unfinished uploads in all, and by one worker.
    pub fn new(max_total: u64, max_of_worker: u64) -> Arc<Self> {
        Arc::new(Self {
            max_total,
            max_of_worker,
            state: Mutex::default(),
            readers: Semaphore::new(MAX_READERS),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until few enough others read large reports.
    ///
    /// # Errors
    ///
    /// None as long as the process lives.
    pub(super) async fn turn_to_read(&self) -> Result<SemaphorePermit<'_>, Fault> {
        let turn = self.readers.acquire().await;
        turn.map_err(|error| Fault::backend("wait to read a report", error))
    }

    /// Begins to receive the upload of a run, after the end of one that is being received. A client
    /// repeats an upload whose connection was lost, which the server may learn only later.
    ///
    /// # Errors
    ///
    /// 503 while the other upload lasts longer than `max_wait`.
    pub(super) async fn begin(
        self: &Arc<Self>,
        run: &ActiveRun,
        max_wait: Duration,
    ) -> Result<Receiving, ApiError> {
        let place = self
            .state()
            .runs
            .entry(run.id.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(1)))
            .clone();
        let mut receiving = Receiving {
            all: self.clone(),
            run: run.id.clone(),
            worker: run.claimant.worker.clone().unwrap_or_default(),
            bytes: 0,
            place: None,
        };
        let waited = timeout(max_wait, place.acquire_owned()).await;
        let Ok(Ok(place)) = waited else {
            return Err(later("another upload of this run is being received"));
        };
        receiving.place = Some(place);
        Ok(receiving)
    }
}

/// An upload that counts until this is dropped.
#[derive(Debug)]
pub(super) struct Receiving {
    all: Arc<Uploads>,
    run: RunId,
    worker: String,
    bytes: u64,
    /// The place of the run, unless this still waits for it.
    place: Option<OwnedSemaphorePermit>,
}

impl Receiving {
    /// Counts more bytes.
    ///
    /// # Errors
    ///
    /// 503 when there are too many with those of others.
    pub(super) fn add(&mut self, bytes: u64) -> Result<(), ApiError> {
        let mut state = self.all.state();
        let of_worker = state.by_worker.get(&self.worker).copied();
        let (total, of_worker) = (state.total + bytes, of_worker.unwrap_or_default() + bytes);
        if total > self.all.max_total || of_worker > self.all.max_of_worker {
            return Err(later("too much is being uploaded at the same time"));
        }
        state.total = total;
        state.by_worker.insert(self.worker.clone(), of_worker);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        let mut state = self.all.state();
        self.place = None;
        let is_last = |place: &Arc<Semaphore>| Arc::strong_count(place) == 1;
        if state.runs.get(&self.run).is_some_and(is_last) {
            state.runs.remove(&self.run);
        }
        state.total = state.total.saturating_sub(self.bytes);
        if let Some(of_worker) = state.by_worker.get_mut(&self.worker) {
            *of_worker = of_worker.saturating_sub(self.bytes);
            if *of_worker == 0 {
                state.by_worker.remove(&self.worker);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{active_run::Claimant, finish::tests::item, time};
    use axum::response::IntoResponse;

    const MAX_WAIT: Duration = Duration::from_secs(60);

    fn run(id: &str, worker: &str) -> ActiveRun {
        let claimant = Claimant {
            worker: Some(worker.to_owned()),
            ..Claimant::default()
        };
        let now = time::parse("t", "2026-01-01T00:00:00").unwrap();
        ActiveRun::new(RunId::new(id), "t".into(), item(), claimant, now)
    }

    #[tokio::test(start_paused = true)]
    async fn run_has_one_upload_at_a_time() {
        let uploads = Uploads::new(100, 100);
        let begin = async |id: &str| uploads.begin(&run(id, "w1"), MAX_WAIT).await;
        let first = begin("r1").await.unwrap();
        let refused = begin("r1").await.unwrap_err().into_response();
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(refused.headers().contains_key(header::RETRY_AFTER));
        assert!(begin("r2").await.is_ok());
        let second = begin("r1");
        let end = async {
            tokio::time::sleep(MAX_WAIT / 2).await;
            drop(first);
        };
        let (second, ()) = tokio::join!(second, end);
        drop(second.unwrap());
        assert!(uploads.state().runs.is_empty());
    }

    #[tokio::test]
    async fn bytes_are_limited_in_all_and_by_worker() {
        let uploads = Uploads::new(100, 70);
        let mut first = uploads.begin(&run("r1", "w1"), MAX_WAIT).await.unwrap();
        let mut second = uploads.begin(&run("r2", "w1"), MAX_WAIT).await.unwrap();
        let mut other = uploads.begin(&run("r3", "w2"), MAX_WAIT).await.unwrap();
        assert!(first.add(40).is_ok());
        assert!(second.add(31).is_err(), "71 of one worker");
        assert!(second.add(30).is_ok());
        assert!(other.add(31).is_err(), "101 in all");
        drop(first);
        assert!(other.add(31).is_ok());
        drop((second, other));
        let state = uploads.state();
        assert!(state.total == 0 && state.by_worker.is_empty() && state.runs.is_empty());
    }
}
