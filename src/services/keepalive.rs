//! Heartbeats of workers, which renew the leases of their runs.

use super::{CoordinatorConfig, ServiceError};
use crate::{
    domain::{active_run::ActiveRun, caller::Caller, name::RunId},
    ports::{ActiveRunStore, ActiveRunStoreError, Clock, Fault, RunStore, active_runs::Renewal},
};
use chrono::TimeDelta;
use std::sync::Arc;

/// Uploads and log appends renew a lease once the last heartbeat is older than this part of it.
const LEASE_FRACTION: i32 = 6;

/// Records heartbeats of workers.
pub struct Keepalive {
    active_runs: Arc<dyn ActiveRunStore>,
    runs: Arc<dyn RunStore>,
    clock: Arc<dyn Clock>,
    config: Arc<CoordinatorConfig>,
}

impl Keepalive {
    /// Creates the use case over these ports.
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

    /// Returns the active run of that id, if the caller may act on it.
    ///
    /// # Errors
    ///
    /// `NotYours` when another worker holds it, `Gone` when it has ended, `NotFound` when there
    /// never was such a run.
    #[tracing::instrument(
        name = "services.keepalive.active",
        level = "debug",
        skip_all,
        fields(run.id = %id)
    )]
    pub async fn active(&self, id: &RunId, caller: &Caller) -> Result<ActiveRun, ServiceError> {
        match self.active_runs.get(id).await? {
            Some(run) if run.may_be_changed_by(caller) => Ok(run),
            Some(_) => Err(ServiceError::NotYours(id.clone())),
            None => Err(self.inactive(id, caller).await?),
        }
    }

    /// Returns why a run is not active: it has ended, maybe with its item assigned again, or there
    /// never was one.
    async fn inactive(&self, id: &RunId, caller: &Caller) -> Result<ServiceError, ServiceError> {
        let Some(run) = self.runs.run(id).await? else {
            return Ok(ServiceError::not_found("active run", id));
        };
        if !run.may_be_read_by(caller) {
            return Ok(ServiceError::NotYours(id.clone()));
        }
        // The result of an abandoned run still counts, unless another worker has the item by now.
        let superseded = !run.given_up
            || self
                .active_runs
                .list()
                .await?
                .iter()
                .any(|other| other.item.id == run.queue_id);
        Ok(ServiceError::Gone {
            run: id.clone(),
            stop: superseded,
        })
    }

    /// Records a heartbeat, which renews the lease; returns the run as it is then.
    ///
    /// # Errors
    ///
    /// As [`Keepalive::active`].
    #[tracing::instrument(
        name = "services.keepalive.renew",
        level = "debug",
        skip_all,
        fields(run.id = %id)
    )]
    pub async fn renew(&self, id: &RunId, caller: &Caller) -> Result<ActiveRun, ServiceError> {
        let run = self.active(id, caller).await?;
        match self.record(&run).await {
            Ok(renewed) => Ok(renewed),
            // It ended between the look and the renewal: the reason is looked up afresh.
            Err(ActiveRunStoreError::ClaimLost(_)) => Err(self.inactive(id, caller).await?),
            Err(ActiveRunStoreError::Fault(fault)) => Err(fault.into()),
        }
    }

    async fn record(&self, run: &ActiveRun) -> Result<ActiveRun, ActiveRunStoreError> {
        let renewal = Renewal {
            now: self.clock.now(),
            lease: self.config.watch.lease,
        };
        self.active_runs.renew(&run.id, &run.token, renewal).await
    }

    /// Records that the worker sends data, which counts as a heartbeat.
    ///
    /// Workers may do so many times a second, so that only the first call within
    /// [`Keepalive::min_interval`] reaches the store. Returns none when the run has ended
    /// meanwhile.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn touch(&self, run: &ActiveRun) -> Result<Option<ActiveRun>, Fault> {
        if self.clock.now() - run.keepalive < self.min_interval() {
            return Ok(Some(run.clone()));
        }
        match self.record(run).await {
            Ok(renewed) => Ok(Some(renewed)),
            Err(ActiveRunStoreError::ClaimLost(_)) => Ok(None),
            Err(ActiveRunStoreError::Fault(fault)) => Err(fault),
        }
    }

    /// Returns how long after a heartbeat the next one need not be stored.
    pub fn min_interval(&self) -> TimeDelta {
        self.config.watch.lease / LEASE_FRACTION
    }
}
