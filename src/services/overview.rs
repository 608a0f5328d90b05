//! What is queued and what runs.

use super::{CoordinatorConfig, ServiceError, keepalive::is_mine};
use crate::{
    domain::{
        active_run::ActiveRun,
        name::RunId,
        queue::{Bucket, QueueItem},
        schedule::Pair,
        time::seconds_between,
    },
    ports::{
        ActiveRunStore, Clock, HostBackoffs, QueueStore, RunStore, event_bus::Status,
        run_store::FinishedCounts,
    },
};
use chrono::TimeDelta;
use std::{collections::BTreeMap, sync::Arc};

/// Where a pair stands, and how long it will take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wait {
    /// The first is 1.
    pub position: u64,
    /// Seconds, with the workers that are busy now.
    pub wait_time: f64,
    /// Seconds of work before it.
    pub cumulative_wait_time: f64,
}

/// Figures about the queue and what was finished.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct QueueFigures {
    pub queue_length: u64,
    pub active_runs: u64,
    pub by_bucket: BTreeMap<Bucket, u64>,
    pub by_campaign: BTreeMap<String, u64>,
    pub oldest_wait_seconds: Option<f64>,
    pub last_hour: FinishedCounts,
    pub last_day: FinishedCounts,
}

/// Looks at the queue and the active runs.
pub struct Overview {
    queue: Arc<dyn QueueStore>,
    active_runs: Arc<dyn ActiveRunStore>,
    host_backoffs: Arc<dyn HostBackoffs>,
    runs: Arc<dyn RunStore>,
    clock: Arc<dyn Clock>,
    config: Arc<CoordinatorConfig>,
}

impl Overview {
    /// Looks through these ports.
    pub fn new(
        queue: Arc<dyn QueueStore>,
        active_runs: Arc<dyn ActiveRunStore>,
        host_backoffs: Arc<dyn HostBackoffs>,
        runs: Arc<dyn RunStore>,
        clock: Arc<dyn Clock>,
        config: Arc<CoordinatorConfig>,
    ) -> Self {
        Self {
            queue,
            active_runs,
            host_backoffs,
            runs,
            clock,
            config,
        }
    }

    /// Returns what runs now, and which hosts are left alone.
    pub async fn status(&self) -> Result<Status, ServiceError> {
        let now = self.clock.now();
        Ok(Status {
            processing: self.active_runs.list().await?,
            avoid_hosts: self.config.avoid_hosts.clone(),
            rate_limit_hosts: self.host_backoffs.backed_off_hosts(now).await?,
            now,
        })
    }

    /// The active run of that id; for a worker, one of its own.
    pub async fn active_run(
        &self,
        id: &RunId,
        worker: Option<&str>,
    ) -> Result<ActiveRun, ServiceError> {
        let run = self
            .active_runs
            .get(id)
            .await?
            .ok_or_else(|| ServiceError::not_found("active run", id))?;
        if is_mine(run.claimant.worker.as_deref(), worker) {
            Ok(run)
        } else {
            Err(ServiceError::NotYours(id.clone()))
        }
    }

    /// The first items of the queue.
    pub async fn queue(&self, limit: usize) -> Result<Vec<QueueItem>, ServiceError> {
        Ok(self.queue.list(limit).await?)
    }

    /// Where a pair stands.
    pub async fn position(&self, pair: &Pair) -> Result<Option<Wait>, ServiceError> {
        let Some(found) = self.queue.position(pair).await? else {
            return Ok(None);
        };
        // Counts of runs are far below 2^53.
        #[expect(clippy::cast_precision_loss)]
        let busy = self.active_runs.list().await?.len().max(1) as f64;
        Ok(Some(Wait {
            position: found.position,
            wait_time: found.wait_time / busy,
            cumulative_wait_time: found.wait_time,
        }))
    }

    /// Figures about the queue and what was finished.
    pub async fn figures(&self) -> Result<QueueFigures, ServiceError> {
        let now = self.clock.now();
        let stats = self.queue.stats().await?;
        Ok(QueueFigures {
            queue_length: stats.length,
            active_runs: self.active_runs.list().await?.len() as u64,
            by_bucket: stats.by_bucket,
            by_campaign: stats.by_campaign,
            oldest_wait_seconds: stats
                .oldest
                .map(|oldest| seconds_between(oldest, now).max(0.0)),
            last_hour: self.runs.finished_since(now - TimeDelta::hours(1)).await?,
            last_day: self.runs.finished_since(now - TimeDelta::days(1)).await?,
        })
    }
}
