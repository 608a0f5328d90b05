//! Signs of life of workers: they renew leases.

use super::{CoordinatorConfig, ServiceError};
use crate::{
    domain::{active_run::ActiveRun, name::RunId},
    ports::{ActiveRunStore, ActiveRunStoreError, Clock, Fault, RunStore, active_runs::Renewal},
};
use chrono::TimeDelta;
use std::sync::Arc;

/// Uploads and logs renew a lease when so much of it has passed.
const SHARE: i32 = 6;

/// Notes signs of life.
pub struct Keepalive {
    active_runs: Arc<dyn ActiveRunStore>,
    runs: Arc<dyn RunStore>,
    clock: Arc<dyn Clock>,
    config: Arc<CoordinatorConfig>,
}

/// Whether a run belongs to a worker; without one, the caller is the operator.
pub(super) fn is_mine(holder: Option<&str>, worker: Option<&str>) -> bool {
    worker.is_none() || holder == worker
}

impl Keepalive {
    /// Notes them through these ports.
    pub fn new(
        active_runs: Arc<dyn ActiveRunStore>,
        runs: Arc<dyn RunStore>,
        clock: Arc<dyn Clock>,
        config: Arc<CoordinatorConfig>,
    ) -> Self {
        Self {
            active_runs,
            runs,
            clock,
            config,
        }
    }

    /// The active run of a worker. `Gone` when it has ended.
    pub async fn active(
        &self,
        id: &RunId,
        worker: Option<&str>,
    ) -> Result<ActiveRun, ServiceError> {
        match self.active_runs.get(id).await? {
            Some(run) if is_mine(run.claimant.worker.as_deref(), worker) => Ok(run),
            Some(_) => Err(ServiceError::NotYours(id.clone())),
            None => Err(self.gone(id, worker).await?),
        }
    }

    /// Why a run is not active: it has ended, and maybe somebody else is at its item, or there never was one.
    async fn gone(&self, id: &RunId, worker: Option<&str>) -> Result<ServiceError, ServiceError> {
        let Some(run) = self.runs.run(id).await? else {
            return Ok(ServiceError::not_found("active run", id));
        };
        if !is_mine(run.worker.as_deref(), worker) {
            return Ok(ServiceError::NotYours(id.clone()));
        }
        let taken = !run.given_up
            || self
                .active_runs
                .list()
                .await?
                .iter()
                .any(|other| other.item.id == run.queue_id);
        Ok(ServiceError::Gone {
            run: id.clone(),
            stop: taken,
        })
    }

    /// Renews the lease of a run; answers the run as it is then.
    pub async fn renew(&self, id: &RunId, worker: Option<&str>) -> Result<ActiveRun, ServiceError> {
        let run = self.active(id, worker).await?;
        match self.note(&run).await {
            Ok(renewed) => Ok(renewed),
            Err(ActiveRunStoreError::ClaimLost(_)) => Err(self.gone(id, worker).await?),
            Err(ActiveRunStoreError::Fault(fault)) => Err(fault.into()),
        }
    }

    async fn note(&self, run: &ActiveRun) -> Result<ActiveRun, ActiveRunStoreError> {
        let renewal = Renewal {
            now: self.clock.now(),
            lease: self.config.watch.lease,
        };
        self.active_runs.renew(&run.id, &run.token, renewal).await
    }

    /// Notes that a worker sends something, which it may do many times a second. None when the run has ended meanwhile.
    pub async fn touch(&self, run: &ActiveRun) -> Result<Option<ActiveRun>, Fault> {
        if self.clock.now() - run.keepalive < self.pause() {
            return Ok(Some(run.clone()));
        }
        match self.note(run).await {
            Ok(renewed) => Ok(Some(renewed)),
            Err(ActiveRunStoreError::ClaimLost(_)) => Ok(None),
            Err(ActiveRunStoreError::Fault(fault)) => Err(fault),
        }
    }

    /// How long a sign of life is new.
    pub fn pause(&self) -> TimeDelta {
        self.config.watch.lease / SHARE
    }
}
