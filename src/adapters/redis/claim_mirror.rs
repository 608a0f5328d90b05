//! A mirror of the active runs of another store in the hashes of a Janitor, so that this runner and
//! the Python one can replace each other on a live deployment, in both directions, without losing
//! active runs (ADR 7).
//!
//! The store decides. Each change is written to the hashes at once while Redis works; a
//! reconciliation in the background writes what was missed, and adopts the active runs that another
//! runner left there.

use super::{
    hashes::{Hashes, MirroredRun},
    ping,
};
use crate::{
    domain::{
        active_run::{ActiveRun, Claimant},
        name::RunId,
        queue::QueueId,
        time::Time,
    },
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

/// How long a request waits for Redis. What could not be written is written by a later
/// reconciliation.
const WRITE_TIMEOUT: Duration = Duration::from_millis(200);
/// How often the hashes are reconciled with the store.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);
/// How long to wait after a failed reconciliation.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Mirrors the active runs of a store in the hashes.
pub struct ClaimMirror {
    hashes: Hashes,
    stores: MirrorStores,
    ids: Arc<dyn Ids>,
    clock: Arc<dyn Clock>,
    /// Whether the hashes miss a change. Until they are reconciled, requests do not write to Redis,
    /// so that a Redis that hangs delays one of them rather than each.
    is_behind: AtomicBool,
}

/// The ports of the store that is mirrored.
pub struct MirrorStores {
    /// Its active runs.
    pub active_runs: Arc<dyn ActiveRunStore>,
    /// Its host backoffs.
    pub host_backoffs: Arc<dyn HostBackoffs>,
    /// Its finished runs.
    pub runs: Arc<dyn RunStore>,
    /// How it records runs.
    pub recorder: Arc<dyn RunRecorder>,
}

/// A store whose active runs are mirrored at each change.
#[derive(Clone)]
pub struct MirroredStores(pub Arc<ClaimMirror>);

impl ClaimMirror {
    /// Creates the mirror of a store, given by its ports.
    pub fn new(
        connection: ConnectionManager,
        stores: MirrorStores,
        ids: Arc<dyn Ids>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            hashes: Hashes { connection },
            stores,
            ids,
            clock,
            // What is in the hashes is not known yet.
            is_behind: AtomicBool::new(true),
        }
    }

    /// Waits a moment for a write to the hashes. A failure is left to the next reconciliation: the
    /// request that it belongs to has succeeded already.
    async fn mirror(&self, write: impl Future<Output = Result<(), Fault>>) {
        if self.is_behind.load(Ordering::Relaxed) {
            return;
        }
        if !matches!(timeout(WRITE_TIMEOUT, write).await, Ok(Ok(()))) {
            self.is_behind.store(true, Ordering::Relaxed);
            tracing::warn!("an active run could not be written to Redis; it will be written later");
        }
    }

    /// Adopts the active runs of other runners, and makes the hashes equal to the store.
    ///
    /// # Errors
    ///
    /// Returns [`Fault`] when Redis or the store fails; the hashes may be out of date then.
    #[tracing::instrument(name = "redis.claim_mirror.reconcile", level = "debug", skip_all)]
    pub async fn reconcile(&self) -> Result<(), Fault> {
        // Before the store is read: changes from here on are written by their requests again, and
        // those before are part of what is read. The other way round, a change in between would be
        // lost.
        let was_behind = self.is_behind.swap(false, Ordering::Relaxed);
        let reconciled = self.reconcile_hashes(was_behind).await;
        if reconciled.is_err() {
            self.is_behind.store(true, Ordering::Relaxed);
        }
        reconciled
    }

    /// Writes the active runs that the hashes lack, or all of them when known ones may be out of
    /// date; deletes those that have ended.
    async fn reconcile_hashes(&self, rewrite_all: bool) -> Result<(), Fault> {
        let mirrored = self.hashes.read(|| self.ids.fresh()).await?;
        self.adopt_foreign(&mirrored).await?;
        self.adopt_backoffs().await?;
        let active = self.stores.active_runs.list().await;
        let active: BTreeMap<RunId, ActiveRun> = active
            .map_err(fault_of_active_runs)?
            .into_iter()
            .map(|run| (run.id.clone(), run))
            .collect();
        let mirrored: BTreeMap<RunId, QueueId> = mirrored
            .into_iter()
            .map(|mirrored| (mirrored.run.id, mirrored.run.item.id))
            .collect();
        let mut missing = vec![];
        for (id, run) in &active {
            // One that the hashes lack was not written yet, or another runner has finished it.
            let is_mirrored = mirrored.contains_key(id);
            if (is_mirrored && rewrite_all) || (!is_mirrored && !self.ended_elsewhere(run).await?) {
                missing.push(run.clone());
            }
        }
        let ended: Vec<(RunId, QueueId)> = mirrored
            .into_iter()
            .filter(|(id, _)| !active.contains_key(id))
            .collect();
        self.hashes.write(&missing, &ended).await
    }

    async fn adopt_foreign(&self, mirrored: &[MirroredRun]) -> Result<(), Fault> {
        for foreign in mirrored.iter().filter(|mirrored| !mirrored.ours) {
            let adopted = self.stores.active_runs.adopt(foreign.run.clone()).await;
            if adopted.map_err(fault_of_active_runs)? {
                tracing::info!(run.id = %foreign.run.id, "adopted an active run of another runner");
            }
        }
        Ok(())
    }

    async fn adopt_backoffs(&self) -> Result<(), Fault> {
        for backoff in self.hashes.backed_off_hosts().await? {
            if backoff.until > self.clock.now() {
                self.stores.host_backoffs.back_off_host(backoff).await?;
            }
        }
        Ok(())
    }

    /// Returns whether another runner has finished this active run; releases its claim then.
    async fn ended_elsewhere(&self, run: &ActiveRun) -> Result<bool, Fault> {
        let finished = self.stores.runs.run(&run.id).await;
        if finished.map_err(fault_of_runs)?.is_none() {
            return Ok(false);
        }
        tracing::info!(run.id = %run.id, "another runner has finished a run of this one");
        let now = self.clock.now();
        match self
            .stores
            .active_runs
            .release(&run.id, &run.token, now)
            .await
        {
            Ok(()) | Err(ActiveRunStoreError::ClaimLost(_)) => Ok(true),
            Err(ActiveRunStoreError::Fault(fault)) => Err(fault),
        }
    }

    /// Reconciles for ever.
    pub async fn run(&self) {
        loop {
            let delay = match self.reconcile().await {
                Ok(()) => RECONCILE_INTERVAL,
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the active runs in Redis may be out of date"
                    );
                    RETRY_DELAY
                }
            };
            // In short steps, so that a write that fails meanwhile is made up for soon.
            let mut waited = Duration::ZERO;
            while waited < delay
                && (delay == RETRY_DELAY || !self.is_behind.load(Ordering::Relaxed))
            {
                tokio::time::sleep(RETRY_DELAY).await;
                waited += RETRY_DELAY;
            }
        }
    }
}

fn fault_of_active_runs(error: ActiveRunStoreError) -> Fault {
    match error {
        ActiveRunStoreError::Fault(fault) => fault,
        lost @ ActiveRunStoreError::ClaimLost(_) => {
            Fault::backend("reconcile the active runs", lost)
        }
    }
}

fn fault_of_runs(error: RunStoreError) -> Fault {
    match error {
        RunStoreError::Fault(fault) => fault,
        other => Fault::backend("reconcile the active runs", other),
    }
}

#[async_trait]
impl ActiveRunStore for MirroredStores {
    #[tracing::instrument(
        name = "redis.active_runs.claim", level = "debug", skip_all,
        fields(run.id = %request.run_id)
    )]
    async fn claim(&self, request: ClaimRequest) -> Result<Option<Claimed>, ActiveRunStoreError> {
        let claimed = self.0.stores.active_runs.claim(request).await?;
        if let Some(claimed) = &claimed {
            self.0
                .mirror(self.0.hashes.write(std::slice::from_ref(&claimed.run), &[]))
                .await;
        }
        Ok(claimed)
    }

    #[tracing::instrument(
        name = "redis.active_runs.update", level = "debug", skip_all, fields(run.id = %id)
    )]
    async fn update(
        &self,
        id: &RunId,
        token: &str,
        update: ActiveRunUpdate,
    ) -> Result<(), ActiveRunStoreError> {
        // The hashes have no count of failed pings, and not whether a worker has responded.
        let is_mirrored = matches!(update, ActiveRunUpdate::Probed { .. });
        self.0.stores.active_runs.update(id, token, update).await?;
        if is_mirrored && let Some(run) = self.0.stores.active_runs.get(id).await? {
            self.0.mirror(self.0.hashes.write(&[run], &[])).await;
        }
        Ok(())
    }

    async fn get(&self, id: &RunId) -> Result<Option<ActiveRun>, ActiveRunStoreError> {
        self.0.stores.active_runs.get(id).await
    }

    async fn list(&self) -> Result<Vec<ActiveRun>, ActiveRunStoreError> {
        self.0.stores.active_runs.list().await
    }

    async fn held_by(&self, claimant: &Claimant) -> Result<Vec<ActiveRun>, ActiveRunStoreError> {
        self.0.stores.active_runs.held_by(claimant).await
    }

    async fn count_held_by(&self, worker: &str) -> Result<u64, ActiveRunStoreError> {
        self.0.stores.active_runs.count_held_by(worker).await
    }

    #[tracing::instrument(
        name = "redis.active_runs.renew", level = "debug", skip_all, fields(run.id = %id)
    )]
    async fn renew(
        &self,
        id: &RunId,
        token: &str,
        renewal: Renewal,
    ) -> Result<ActiveRun, ActiveRunStoreError> {
        let run = self.0.stores.active_runs.renew(id, token, renewal).await?;
        self.0
            .mirror(self.0.hashes.keepalive(id, run.keepalive))
            .await;
        Ok(run)
    }

    async fn cancel(
        &self,
        id: &RunId,
        reason: &str,
    ) -> Result<Option<ActiveRun>, ActiveRunStoreError> {
        self.0.stores.active_runs.cancel(id, reason).await
    }

    #[tracing::instrument(
        name = "redis.active_runs.release", level = "debug", skip_all, fields(run.id = %id)
    )]
    async fn release(&self, id: &RunId, token: &str, now: Time) -> Result<(), ActiveRunStoreError> {
        // Before the release, after which nothing knows the item of the run any more.
        let item = self
            .0
            .stores
            .active_runs
            .get(id)
            .await?
            .map(|run| run.item.id);
        self.0.stores.active_runs.release(id, token, now).await?;
        self.0
            .mirror(
                self.0
                    .hashes
                    .write(&[], &[(id.clone(), item.unwrap_or_default())]),
            )
            .await;
        Ok(())
    }

    async fn adopt(&self, run: ActiveRun) -> Result<bool, ActiveRunStoreError> {
        self.0.stores.active_runs.adopt(run).await
    }
}

#[async_trait]
impl HostBackoffs for MirroredStores {
    #[tracing::instrument(
        name = "redis.host_backoff.back_off_host", level = "debug", skip_all,
        fields(host = %backoff.host)
    )]
    async fn back_off_host(&self, backoff: HostBackoff) -> Result<(), Fault> {
        self.0
            .stores
            .host_backoffs
            .back_off_host(backoff.clone())
            .await?;
        self.0.mirror(self.0.hashes.back_off_host(&backoff)).await;
        Ok(())
    }

    #[tracing::instrument(
        name = "redis.host_backoff.end_backoff",
        level = "debug",
        skip_all,
        fields(host)
    )]
    async fn end_backoff(&self, host: &str) -> Result<bool, Fault> {
        // First here: what is left in the hashes would be adopted again.
        self.0.hashes.end_backoff(host).await?;
        self.0.stores.host_backoffs.end_backoff(host).await
    }

    async fn backed_off_hosts(&self, now: Time) -> Result<Vec<HostBackoff>, Fault> {
        self.0.stores.host_backoffs.backed_off_hosts(now).await
    }
}

#[async_trait]
impl RunRecorder for MirroredStores {
    #[tracing::instrument(
        name = "redis.run_recorder.record", level = "debug", skip_all,
        fields(run.id = %new.run.id)
    )]
    async fn record(&self, new: NewRun) -> Result<Recorded, RunStoreError> {
        let (id, item) = (new.run.id.clone(), new.run.queue_id);
        let recorded = self.0.stores.recorder.record(new).await?;
        self.0.mirror(self.0.hashes.write(&[], &[(id, item)])).await;
        Ok(recorded)
    }

    async fn record_late(&self, late: LateRun) -> Result<LateOutcome, RunStoreError> {
        self.0.stores.recorder.record_late(late).await
    }
}

#[async_trait]
impl HealthCheck for ClaimMirror {
    async fn health_check(&self) -> Result<(), Fault> {
        ping("check the coordination", &self.hashes.connection).await
    }
}
