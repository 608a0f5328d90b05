//! Claims of another store, kept in the Janitor's hashes too: so this runner and the Python one can take turns on a live
//! deployment, in both directions, with the active runs kept.
//!
//! The store decides; the hashes follow at once while Redis answers, and are put right again when it was away. Active
//! runs that another runner left there are taken over.

use super::{hashes::Hashes, ping};
use crate::{
    domain::{active_run::ActiveRun, name::RunId, queue::QueueId, time::Time},
    ports::{
        ActiveRunStore, ActiveRunStoreError, Clock, Fault, HealthCheck, HostBackoffs, Ids,
        RunRecorder, RunStore, RunStoreError,
        active_runs::{ActiveRunUpdate, ClaimRequest, Claimed, Renewal},
        host_backoff::HostBackoff,
        run_recorder::{LateOutcome, LateRun, NewRun, Recorded},
    },
};
use ::redis::aio::ConnectionManager;
use async_trait::async_trait;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;

/// How long a request waits for Redis to be told; what it did not hear, it is told later.
const WRITE_TIMEOUT: Duration = Duration::from_millis(200);
/// How often the hashes are compared with the store.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Keeps the hashes.
pub struct ClaimMirror {
    hashes: Hashes,
    active_runs: Arc<dyn ActiveRunStore>,
    host_backoffs: Arc<dyn HostBackoffs>,
    runs: Arc<dyn RunStore>,
    recorder: Arc<dyn RunRecorder>,
    ids: Arc<dyn Ids>,
    clock: Arc<dyn Clock>,
    /// Redis was not told of everything: requests do not wait for it until it was.
    behind: AtomicBool,
}

/// The ports of the store that is mirrored.
#[expect(missing_docs)]
pub struct MirrorStores {
    pub active_runs: Arc<dyn ActiveRunStore>,
    pub host_backoffs: Arc<dyn HostBackoffs>,
    pub runs: Arc<dyn RunStore>,
    pub recorder: Arc<dyn RunRecorder>,
}

/// A store whose claims are kept in the hashes too.
#[derive(Clone)]
pub struct MirroredStores(pub Arc<ClaimMirror>);

impl ClaimMirror {
    /// Keeps the claims of a store, given by its ports.
    pub fn new(
        connection: ConnectionManager,
        stores: MirrorStores,
        ids: Arc<dyn Ids>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            hashes: Hashes { connection },
            active_runs: stores.active_runs,
            host_backoffs: stores.host_backoffs,
            runs: stores.runs,
            recorder: stores.recorder,
            ids,
            clock,
            behind: AtomicBool::new(true),
        }
    }

    async fn write(&self, written: impl Future<Output = Result<(), Fault>>) {
        if self.behind.load(Ordering::Relaxed) {
            return;
        }
        if !matches!(timeout(WRITE_TIMEOUT, written).await, Ok(Ok(()))) {
            self.behind.store(true, Ordering::Relaxed);
            tracing::warn!("Redis was not told of an active run, and will be later");
        }
    }

    /// Takes over what others left, and makes the hashes say what the store says.
    pub async fn reconcile(&self) -> Result<(), Fault> {
        // From here on what happens is told at once again; what happened before is read below.
        let everything = self.behind.swap(false, Ordering::Relaxed);
        let compared = self.reconcile_hashes(everything).await;
        if compared.is_err() {
            self.behind.store(true, Ordering::Relaxed);
        }
        compared
    }

    /// Writes what is missing there, or everything, since what is there may be old.
    async fn reconcile_hashes(&self, everything: bool) -> Result<(), Fault> {
        let there = self.hashes.read(|| self.ids.fresh()).await?;
        let foreign = there.iter().filter(|found| !found.ours);
        for found in foreign {
            if self
                .active_runs
                .adopt(found.run.clone())
                .await
                .map_err(of_claims)?
            {
                tracing::info!(run.id = %found.run.id, "an active run of another runner is taken over");
            }
        }
        for limit in self.hashes.backed_off_hosts().await? {
            if limit.until > self.clock.now() {
                self.host_backoffs.back_off_host(limit).await?;
            }
        }
        let held: BTreeMap<RunId, ActiveRun> = self
            .active_runs
            .list()
            .await
            .map_err(of_claims)?
            .into_iter()
            .map(|run| (run.id.clone(), run))
            .collect();
        let there: BTreeMap<RunId, QueueId> = there
            .into_iter()
            .map(|found| (found.run.id, found.run.item.id))
            .collect();
        let mut missing = vec![];
        for (id, run) in &held {
            // One that is not there was told to nobody, or another runner finished it.
            let known = there.contains_key(id);
            if (known && everything) || (!known && !self.ended_elsewhere(run).await?) {
                missing.push(run.clone());
            }
        }
        let gone: Vec<(RunId, QueueId)> = there
            .into_iter()
            .filter(|(id, _)| !held.contains_key(id))
            .collect();
        self.hashes.write(&missing, &gone).await
    }

    async fn ended_elsewhere(&self, run: &ActiveRun) -> Result<bool, Fault> {
        if self.runs.run(&run.id).await.map_err(of_results)?.is_none() {
            return Ok(false);
        }
        tracing::info!(run.id = %run.id, "another runner has finished a run of ours");
        match self
            .active_runs
            .release(&run.id, &run.token, self.clock.now())
            .await
        {
            Ok(()) | Err(ActiveRunStoreError::ClaimLost(_)) => Ok(true),
            Err(ActiveRunStoreError::Fault(fault)) => Err(fault),
        }
    }

    /// Compares for ever.
    pub async fn run(&self) {
        loop {
            let wait = match self.reconcile().await {
                Ok(()) => RECONCILE_INTERVAL,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the active runs in Redis may be old"
                    );
                    RETRY_DELAY
                }
            };
            let mut waited = Duration::ZERO;
            while waited < wait && (wait == RETRY_DELAY || !self.behind.load(Ordering::Relaxed)) {
                tokio::time::sleep(RETRY_DELAY).await;
                waited += RETRY_DELAY;
            }
        }
    }
}

fn of_claims(error: ActiveRunStoreError) -> Fault {
    match error {
        ActiveRunStoreError::Fault(fault) => fault,
        lost @ ActiveRunStoreError::ClaimLost(_) => Fault::backend("compare the active runs", lost),
    }
}

fn of_results(error: RunStoreError) -> Fault {
    match error {
        RunStoreError::Fault(fault) => fault,
        other => Fault::backend("compare the active runs", other),
    }
}

#[async_trait]
impl ActiveRunStore for MirroredStores {
    async fn claim(&self, request: ClaimRequest) -> Result<Option<Claimed>, ActiveRunStoreError> {
        let claimed = self.0.active_runs.claim(request).await?;
        if let Some(claimed) = &claimed {
            self.0
                .write(self.0.hashes.write(std::slice::from_ref(&claimed.run), &[]))
                .await;
        }
        Ok(claimed)
    }

    async fn update(
        &self,
        id: &RunId,
        token: &str,
        update: ActiveRunUpdate,
    ) -> Result<(), ActiveRunStoreError> {
        let visible = matches!(update, ActiveRunUpdate::Probed { .. });
        self.0.active_runs.update(id, token, update).await?;
        if visible && let Some(run) = self.0.active_runs.get(id).await? {
            self.0.write(self.0.hashes.write(&[run], &[])).await;
        }
        Ok(())
    }

    async fn get(&self, id: &RunId) -> Result<Option<ActiveRun>, ActiveRunStoreError> {
        self.0.active_runs.get(id).await
    }

    async fn list(&self) -> Result<Vec<ActiveRun>, ActiveRunStoreError> {
        self.0.active_runs.list().await
    }

    async fn renew(
        &self,
        id: &RunId,
        token: &str,
        renewal: Renewal,
    ) -> Result<ActiveRun, ActiveRunStoreError> {
        let run = self.0.active_runs.renew(id, token, renewal).await?;
        self.0
            .write(self.0.hashes.keepalive(id, run.keepalive))
            .await;
        Ok(run)
    }

    async fn cancel(
        &self,
        id: &RunId,
        reason: &str,
    ) -> Result<Option<ActiveRun>, ActiveRunStoreError> {
        self.0.active_runs.cancel(id, reason).await
    }

    async fn release(&self, id: &RunId, token: &str, now: Time) -> Result<(), ActiveRunStoreError> {
        let item = self.0.active_runs.get(id).await?.map(|run| run.item.id);
        self.0.active_runs.release(id, token, now).await?;
        self.0
            .write(
                self.0
                    .hashes
                    .write(&[], &[(id.clone(), item.unwrap_or_default())]),
            )
            .await;
        Ok(())
    }

    async fn adopt(&self, run: ActiveRun) -> Result<bool, ActiveRunStoreError> {
        self.0.active_runs.adopt(run).await
    }
}

#[async_trait]
impl HostBackoffs for MirroredStores {
    async fn back_off_host(&self, limit: HostBackoff) -> Result<(), Fault> {
        self.0.host_backoffs.back_off_host(limit.clone()).await?;
        self.0.write(self.0.hashes.back_off_host(&limit)).await;
        Ok(())
    }

    async fn backed_off_hosts(&self, now: Time) -> Result<Vec<HostBackoff>, Fault> {
        self.0.host_backoffs.backed_off_hosts(now).await
    }
}

#[async_trait]
impl RunRecorder for MirroredStores {
    async fn record(&self, new: NewRun) -> Result<Recorded, RunStoreError> {
        let (id, item) = (new.run.id.clone(), new.run.queue_id);
        let recorded = self.0.recorder.record(new).await?;
        self.0.write(self.0.hashes.write(&[], &[(id, item)])).await;
        Ok(recorded)
    }

    async fn record_late(&self, late: LateRun) -> Result<LateOutcome, RunStoreError> {
        self.0.recorder.record_late(late).await
    }
}

#[async_trait]
impl HealthCheck for ClaimMirror {
    async fn health_check(&self) -> Result<(), Fault> {
        ping("check the coordination", &self.hashes.connection).await
    }
}
