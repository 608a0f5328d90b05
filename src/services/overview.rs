//! What is queued and what is running.

use super::{CoordinatorConfig, ServiceError, prober::Prober};
use crate::{
    domain::{
        active_run::ActiveRun,
        caller::Caller,
        name::RunId,
        queue::{Bucket, QueueItem},
        schedule::Pair,
        time::{Time, seconds_between},
    },
    ports::{
        ActiveRunStore, Clock, Fault, HostBackoffs, QueueStore, RunStore, event_bus::Status,
        run_store::FinishedCounts,
    },
};
use chrono::TimeDelta;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::Mutex;
use tracing::Instrument;

/// For how long figures count as recent.
const RECENT: TimeDelta = TimeDelta::seconds(5);

/// The position of a pair in the queue, and how long it will wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wait {
    /// The position in the queue; that of the first item is 1.
    pub position: u64,
    /// The expected seconds until it is assigned, with as many workers as are busy now.
    pub wait_time: f64,
    /// The expected seconds of work in all items before it.
    pub cumulative_wait_time: f64,
}

/// Figures about the queue and the runs that were finished lately.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueFigures {
    /// The number of queue items.
    pub queue_length: u64,
    /// The number of active runs.
    pub active_runs: u64,
    /// The number of queue items in each bucket.
    pub by_bucket: BTreeMap<Bucket, u64>,
    /// The number of queue items of each campaign.
    pub by_campaign: BTreeMap<String, u64>,
    /// The seconds for which the oldest item has waited; none when the queue is empty.
    pub oldest_wait_seconds: Option<f64>,
    /// The runs that were finished within the last hour, by result code.
    pub last_hour: FinishedCounts,
    /// The runs that were finished within the last 24 hours, by result code.
    pub last_day: FinishedCounts,
}

/// Figures, or why they could not be read, and when that was.
type RecentFigures = (Time, Result<QueueFigures, Fault>);

fn duplicate(figures: &Result<QueueFigures, Fault>) -> Result<QueueFigures, Fault> {
    match figures {
        Ok(figures) => Ok(figures.clone()),
        Err(fault) => Err(fault.duplicate()),
    }
}

/// Reads the state of the queue and of the active runs.
pub struct Overview {
    queue: Arc<dyn QueueStore>,
    active_runs: Arc<dyn ActiveRunStore>,
    host_backoffs: Arc<dyn HostBackoffs>,
    runs: Arc<dyn RunStore>,
    clock: Arc<dyn Clock>,
    config: Arc<CoordinatorConfig>,
    prober: Arc<Prober>,
    /// The figures that strangers see.
    recent: Arc<Mutex<Option<RecentFigures>>>,
}

impl Overview {
    /// Creates the use case over these ports.
    pub fn new(
        queue: Arc<dyn QueueStore>,
        active_runs: Arc<dyn ActiveRunStore>,
        host_backoffs: Arc<dyn HostBackoffs>,
        runs: Arc<dyn RunStore>,
        clock: Arc<dyn Clock>,
        config: Arc<CoordinatorConfig>,
        prober: Arc<Prober>,
    ) -> Self {
        Self {
            queue,
            active_runs,
            host_backoffs,
            runs,
            clock,
            config,
            prober,
            recent: Arc::default(),
        }
    }

    /// Returns the active runs, and the hosts from which nothing is assigned.
    ///
    /// # Errors
    ///
    /// When a store fails.
    #[tracing::instrument(name = "services.overview.status", skip_all)]
    pub async fn status(&self) -> Result<Status, ServiceError> {
        let now = self.clock.now();
        Ok(Status {
            processing: self.active_runs.list().await?,
            avoid_hosts: self.config.avoid_hosts.clone(),
            rate_limit_hosts: self.host_backoffs.backed_off_hosts(now).await?,
            slow_hosts: self.prober.slow_hosts(),
            now,
        })
    }

    /// Returns the active run of that id.
    ///
    /// # Errors
    ///
    /// `NotFound` when no such run is active, `NotYours` when the caller may not act on it.
    #[tracing::instrument(name = "services.overview.active_run", skip_all, fields(run.id = %id))]
    pub async fn active_run(&self, id: &RunId, caller: &Caller) -> Result<ActiveRun, ServiceError> {
        let run = self
            .active_runs
            .get(id)
            .await?
            .ok_or_else(|| ServiceError::not_found("active run", id))?;
        if run.may_be_changed_by(caller) {
            Ok(run)
        } else {
            Err(ServiceError::NotYours(id.clone()))
        }
    }

    /// Returns the first items of the queue, in order.
    ///
    /// # Errors
    ///
    /// When the store fails.
    #[tracing::instrument(name = "services.overview.queue", skip_all)]
    pub async fn queue(&self, limit: usize) -> Result<Vec<QueueItem>, ServiceError> {
        Ok(self.queue.list(limit).await?)
    }

    /// Returns the position of a pair in the queue; none when it is not queued.
    ///
    /// # Errors
    ///
    /// When a store fails.
    #[tracing::instrument(
        name = "services.overview.position",
        skip_all,
        fields(codebase = %pair.codebase, campaign = %pair.campaign)
    )]
    pub async fn position(&self, pair: &Pair) -> Result<Option<Wait>, ServiceError> {
        let Some(found) = self.queue.position(pair).await? else {
            return Ok(None);
        };
        // Counts of runs are far below 2^53, up to which a float is exact.
        #[expect(clippy::cast_precision_loss)]
        let busy = self.active_runs.list().await?.len().max(1) as f64;
        Ok(Some(Wait {
            position: found.position,
            wait_time: found.wait_time / busy,
            cumulative_wait_time: found.wait_time,
        }))
    }

    /// Returns the figures of a moment ago. However many ask, the store is read once in that time.
    ///
    /// # Errors
    ///
    /// When a store fails.
    #[tracing::instrument(name = "services.overview.recent_figures", skip_all)]
    pub async fn recent_figures(self: &Arc<Self>) -> Result<QueueFigures, Fault> {
        // Held while the store is read, so that all others wait for the one that reads it.
        let mut recent = self.recent.clone().lock_owned().await;
        let now = self.clock.now();
        if let Some((read, figures)) = recent.as_ref()
            && (TimeDelta::zero()..RECENT).contains(&(now - *read))
        {
            return duplicate(figures);
        }
        let this = self.clone();
        // On a task of its own: a store that is being read goes on when the client has gone, and
        // the next one must not make it read once more.
        let task = async move {
            let figures = this.figures().await.map_err(|error| match error {
                ServiceError::Fault(fault) => fault,
                other => Fault::backend("read the figures of the queue", other),
            });
            *recent = Some((this.clock.now(), duplicate(&figures)));
            figures
        };
        tokio::spawn(task.in_current_span())
            .await
            .map_err(|error| Fault::backend("read the figures of the queue", error))?
    }

    /// Returns figures about the queue and the runs that were finished lately.
    ///
    /// # Errors
    ///
    /// When a store fails.
    #[tracing::instrument(name = "services.overview.figures", skip_all)]
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
