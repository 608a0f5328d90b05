//! Explains why an item is at its position in the queue, and what keeps it from being assigned.

use super::{CoordinatorConfig, ServiceError};
use crate::{
    domain::{
        codebase::Codebase,
        pause::{ConcurrencyLimit, Pauses as PauseSet},
        queue::{QueueId, QueueItem},
        schedule::{Score, score},
        time::{Time, iso},
    },
    ports::{
        ActiveRunStore, Catalog, Clock, HostBackoffs, Parking, PauseStore, QueueStore,
        ScheduleStore, queue_store::Position,
    },
};
use std::sync::Arc;

/// Something that keeps an item from being assigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// The kind, such as `paused`.
    pub kind: &'static str,
    /// The details, in words.
    pub detail: String,
    /// When it ends by itself, if it does.
    pub until: Option<Time>,
}

/// The explanation of a queue item.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// The item.
    pub item: QueueItem,
    /// The position of the item.
    pub position: Position,
    /// The score that its candidate would get now; `None` without a candidate.
    pub score: Option<Score>,
    /// What keeps the item from being assigned; empty when nothing does.
    pub blockers: Vec<Blocker>,
}

/// Explains queue items.
pub struct Explainer {
    /// The queue, which knows their positions.
    pub queue: Arc<dyn QueueStore>,
    /// Their retry states.
    pub parking: Arc<dyn Parking>,
    /// The pauses and limits.
    pub pauses: Arc<dyn PauseStore>,
    /// The active runs.
    pub active_runs: Arc<dyn ActiveRunStore>,
    /// The hosts that are backing off.
    pub host_backoffs: Arc<dyn HostBackoffs>,
    /// The codebases.
    pub catalog: Arc<dyn Catalog>,
    /// The facts that scores depend on.
    pub schedules: Arc<dyn ScheduleStore>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The campaigns and the avoided hosts.
    pub config: Arc<CoordinatorConfig>,
}

fn blocker(kind: &'static str, detail: impl Into<String>, until: Option<Time>) -> Blocker {
    Blocker {
        kind,
        detail: detail.into(),
        until,
    }
}

impl Explainer {
    /// Explains an item.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NotFound`] when the item is not queued; [`ServiceError::Fault`] when a store
    /// fails.
    #[tracing::instrument(name = "services.explain.item", skip_all, fields(queue.id = id))]
    pub async fn explain(&self, id: QueueId) -> Result<Explanation, ServiceError> {
        let absent = || ServiceError::not_found("queue item", id);
        let entry = self.parking.entry(id).await?.ok_or_else(absent)?;
        let position = self.queue.position_of(id).await?.ok_or_else(absent)?;
        let (item, now) = (entry.item, self.clock.now());
        let facts = self
            .schedules
            .facts(std::slice::from_ref(&item.key))
            .await?
            .pop();
        let score = facts.and_then(|facts| {
            facts
                .candidate
                .as_ref()
                .map(|candidate| score(candidate, item.context.as_deref(), &facts, now))
        });
        let mut blockers = vec![];
        if let Some(parked) = entry.state.parked {
            blockers.push(blocker(
                "parked",
                format!("since {}: {}", iso(parked.since), parked.reason),
                None,
            ));
        }
        if let Some(until) = entry.state.not_before.filter(|until| *until > now) {
            let why = match entry.state.repeats {
                Some(repeats) => format!(
                    "its last {repeats} runs ended alike; scheduling it by hand or uploading its \
                     candidate ends that"
                ),
                None => "its last run failed in a way that a repeat may cure".to_owned(),
            };
            blockers.push(blocker("snoozed", why, Some(until)));
        }
        blockers.extend(self.shared_blockers(&item, now).await?);
        if self.config.campaigns.campaign(&item.key.campaign).is_none() {
            blockers.push(blocker(
                "unknown campaign",
                format!(
                    "{} is not configured; its run will end at once",
                    item.key.campaign
                ),
                None,
            ));
        }
        Ok(Explanation {
            item,
            position,
            score,
            blockers,
        })
    }

    /// Returns the blockers that do not come from the item itself.
    async fn shared_blockers(
        &self,
        item: &QueueItem,
        now: Time,
    ) -> Result<Vec<Blocker>, ServiceError> {
        let mut blockers = vec![];
        let active = self.active_runs.list().await?;
        if let Some(run) = active.iter().find(|run| run.item.id == item.id) {
            let worker = run
                .claimant
                .worker
                .as_deref()
                .unwrap_or("a worker without a name");
            blockers.push(blocker(
                "held",
                format!("{worker} is at it, run {}", run.id),
                None,
            ));
        }
        let codebase = self.catalog.codebase(&item.key.codebase).await?;
        let host = codebase.as_ref().and_then(Codebase::host);
        let host = host.as_deref();
        let pauses: PauseSet = self.pauses.pauses(now).await?.into_iter().collect();
        for pause in pauses.of_item(item, host) {
            let what = format!("{} {}", pause.scope.kind(), pause.scope.name());
            blockers.push(blocker(
                "paused",
                format!("{}: {}", what.trim_end(), pause.reason),
                pause.until,
            ));
        }
        for limit in self.pauses.limits().await? {
            let running = limit.used(&active);
            if concerns(&limit, item, host) && running >= limit.most as usize {
                let detail = format!(
                    "{} {}: {running} of {} run",
                    limit.scope.kind(),
                    limit.scope.name(),
                    limit.most
                );
                blockers.push(blocker("limit", detail, None));
            }
        }
        if let Some(host) = host {
            blockers.extend(self.host_blockers(host, now).await?);
        }
        Ok(blockers)
    }

    /// Returns the blockers of the host of an item's codebase.
    async fn host_blockers(&self, host: &str, now: Time) -> Result<Vec<Blocker>, ServiceError> {
        let mut blockers = vec![];
        if self
            .config
            .avoid_hosts
            .iter()
            .any(|avoided| avoided == host)
        {
            blockers.push(blocker(
                "avoided host",
                format!("the settings leave {host} alone"),
                None,
            ));
        }
        let backing_off = self.host_backoffs.backed_off_hosts(now).await?;
        if let Some(backoff) = backing_off.into_iter().find(|backoff| backoff.host == host) {
            blockers.push(blocker(
                "rate-limited host",
                format!("{} asked to be left alone", backoff.host),
                Some(backoff.until),
            ));
        }
        Ok(blockers)
    }
}

/// Returns whether an item counts towards a limit.
fn concerns(limit: &ConcurrencyLimit, item: &QueueItem, host: Option<&str>) -> bool {
    let name = limit.scope.name();
    match limit.scope.kind() {
        "campaign" => item.key.campaign.as_str() == name,
        _ => host == Some(name),
    }
}
