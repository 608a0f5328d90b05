//! Queues runs that somebody asks for, one or many.

use super::{CoordinatorConfig, ServiceError};
use crate::{
    domain::{
        Invalid,
        candidate::Candidate,
        name::{CampaignName, CodebaseName, RunId},
        queue::{Bucket, EnqueueRequest, QueueId, QueueItem, QueueKey},
        run::{ResultCode, Run},
        schedule::{ManualSchedule, ScheduleFacts, ScheduleRequest, control_command, regular},
    },
    ports::{Catalog, Clock, QueueStore, RunStore, ScheduleStore, queue_store::EnqueueBatch},
};
use std::{collections::BTreeMap, sync::Arc};

/// The campaign of control runs.
const CONTROL: &str = "control";

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The same as an earlier run.
    Run(RunId),
    /// A pair; a control run has a campaign of its own.
    #[expect(missing_docs)]
    Pair {
        codebase: CodebaseName,
        campaign: Option<CampaignName>,
    },
}

/// How to run it; what is left out has a default.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(missing_docs)]
pub struct Options {
    pub bucket: Option<Bucket>,
    pub offset: Option<f64>,
    pub refresh: bool,
    pub change_set: Option<String>,
    pub requester: Option<String>,
    /// Seconds.
    pub estimated_duration: Option<f64>,
}

/// A run that was queued by hand.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct Scheduled {
    pub campaign: CampaignName,
    pub codebase: CodebaseName,
    pub queue_id: QueueId,
    pub bucket: Bucket,
    pub offset: f64,
    /// Seconds.
    pub estimated_duration: f64,
}

/// What to do with many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkAction {
    /// Queue again what failed.
    Reschedule,
    /// Take waiting items off the queue.
    Deschedule,
    /// Take waiting items off the queue and schedule their candidates afresh.
    Reset,
}

/// Which ones.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct BulkRequest {
    pub action: BulkAction,
    pub campaign: CampaignName,
    pub codebase: Option<CodebaseName>,
    pub result_code: Option<ResultCode>,
    pub min_success_chance: Option<f64>,
    pub bucket: Option<Bucket>,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// One that was or would be affected.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct Affected {
    pub key: QueueKey,
    pub queue_id: Option<QueueId>,
    pub result_code: Option<ResultCode>,
}

/// Queues runs by hand.
pub struct Scheduler {
    catalog: Arc<dyn Catalog>,
    schedules: Arc<dyn ScheduleStore>,
    runs: Arc<dyn RunStore>,
    queue: Arc<dyn QueueStore>,
    clock: Arc<dyn Clock>,
    config: Arc<CoordinatorConfig>,
}

fn check(options: &Options) -> Result<(), Invalid> {
    let finite = |field: &str, number: Option<f64>| match number {
        Some(number) if !number.is_finite() => Err(Invalid::new(field, "is not a finite number")),
        _ => Ok(()),
    };
    finite("offset", options.offset)?;
    finite("estimated_duration", options.estimated_duration)?;
    if options
        .estimated_duration
        .is_some_and(|seconds| !(0.0..=1e9).contains(&seconds))
    {
        return Err(Invalid::new(
            "estimated_duration",
            "is not a number of seconds from 0 to 10^9",
        ));
    }
    for (field, value) in [
        ("requester", &options.requester),
        ("change_set", &options.change_set),
    ] {
        value
            .clone()
            .map(|value| crate::domain::invalid::text(field, value))
            .transpose()?;
    }
    Ok(())
}

impl Scheduler {
    /// Queues through these ports.
    pub fn new(
        catalog: Arc<dyn Catalog>,
        schedules: Arc<dyn ScheduleStore>,
        runs: Arc<dyn RunStore>,
        queue: Arc<dyn QueueStore>,
        clock: Arc<dyn Clock>,
        config: Arc<CoordinatorConfig>,
    ) -> Self {
        Self {
            catalog,
            schedules,
            runs,
            queue,
            clock,
            config,
        }
    }

    async fn earlier_run(&self, id: &RunId) -> Result<Run, ServiceError> {
        self.runs
            .run(id)
            .await?
            .ok_or_else(|| ServiceError::not_found("run", id))
    }

    async fn facts(&self, key: &QueueKey) -> Result<ScheduleFacts, ServiceError> {
        if self.catalog.codebase(&key.codebase).await?.is_none() {
            return Err(ServiceError::not_found("codebase", &key.codebase));
        }
        let facts = self.schedules.facts(std::slice::from_ref(key)).await?.pop();
        facts.ok_or_else(|| ServiceError::not_found("codebase", &key.codebase))
    }

    async fn queue(&self, enqueue: EnqueueRequest) -> Result<Scheduled, ServiceError> {
        let (codebase, campaign, offset) = (
            enqueue.key.codebase.clone(),
            enqueue.key.campaign.clone(),
            enqueue.offset,
        );
        let estimated_duration = enqueue.estimated_duration.unwrap_or_default();
        let batch = EnqueueBatch {
            items: vec![enqueue],
            settles: vec![],
            now: self.clock.now(),
        };
        let queued = self.queue.enqueue(batch).await?.pop();
        let queued = queued.ok_or_else(|| ServiceError::not_found("queue item", &codebase))?;
        Ok(Scheduled {
            campaign,
            codebase,
            queue_id: queued.queue_id,
            bucket: queued.bucket,
            offset,
            estimated_duration,
        })
    }

    /// Queues a run of a pair, or of what an earlier run was of.
    pub async fn schedule(
        &self,
        subject: Subject,
        options: Options,
    ) -> Result<Scheduled, ServiceError> {
        check(&options)?;
        let (mut key, earlier_command) = match subject {
            Subject::Run(id) => {
                let run = self.earlier_run(&id).await?;
                (run.key(), Some(run.command))
            }
            Subject::Pair { codebase, campaign } => {
                let campaign = campaign.ok_or_else(|| Invalid::new("campaign", "is missing"))?;
                (
                    QueueKey {
                        codebase,
                        campaign,
                        change_set: None,
                    },
                    None,
                )
            }
        };
        key.change_set = options.change_set.clone().or(key.change_set);
        let facts = self.facts(&key).await?;
        let campaign = self.config.campaigns.campaign(&key.campaign);
        let of_candidate = facts
            .candidate
            .as_ref()
            .map(|candidate| candidate.command.clone());
        let of_campaign = campaign.and_then(|campaign| campaign.command.clone());
        let command = of_candidate
            .or(of_campaign)
            .or(earlier_command)
            .filter(|command| !command.is_empty());
        let context = facts
            .candidate
            .as_ref()
            .and_then(|candidate| candidate.context.clone());
        let manual = manual(key, options);
        self.queue(manual.enqueue(
            command.ok_or(ServiceError::NoCommand)?,
            context,
            Bucket::Default,
            facts.means,
        ))
        .await
    }

    /// Queues a run that only brings the codebase's main branch to a revision, to see what happens without the change.
    pub async fn schedule_control(
        &self,
        subject: Subject,
        revision: Option<String>,
        options: Options,
    ) -> Result<Scheduled, ServiceError> {
        check(&options)?;
        let (codebase, revision) = match subject {
            Subject::Run(id) => {
                let run = self.earlier_run(&id).await?;
                (run.codebase, run.main_branch_revision.or(revision))
            }
            Subject::Pair { codebase, .. } => (codebase, revision),
        };
        let revision =
            revision.ok_or_else(|| Invalid::new("main_branch_revision", "is missing"))?;
        let command = control_command(&revision)
            .ok_or_else(|| Invalid::new("main_branch_revision", "must not contain NUL bytes"))?;
        let campaign = CampaignName::new(CONTROL)?;
        let key = QueueKey {
            codebase,
            campaign,
            change_set: options.change_set.clone(),
        };
        let facts = self.facts(&key).await?;
        self.queue(manual(key, options).enqueue(command, None, Bucket::Control, facts.means))
            .await
    }

    /// Does something with all that match; answers those that were, or would be, affected.
    pub async fn bulk(&self, request: BulkRequest) -> Result<Vec<Affected>, ServiceError> {
        let last: BTreeMap<CodebaseName, Run> = self
            .schedules
            .last_effective_runs(&request.campaign)
            .await?
            .into_iter()
            .map(|run| (run.codebase.clone(), run))
            .collect();
        let all = self.catalog.candidates(request.codebase.clone()).await?;
        let candidates: BTreeMap<QueueKey, Candidate> = all
            .into_iter()
            .filter(|c| c.key.campaign == request.campaign)
            .map(|c| (c.key.clone(), c))
            .collect();
        let matches = |key: &QueueKey| {
            let code = last.get(&key.codebase).map(|run| &run.code);
            let chance = candidates.get(key).and_then(|c| c.success_chance);
            let code_matches =
                request.result_code.is_none() || code == request.result_code.as_ref();
            code_matches
                && request
                    .min_success_chance
                    .is_none_or(|least| chance.is_some_and(|chance| chance >= least))
        };
        let affected = |key: &QueueKey, queue_id| Affected {
            key: key.clone(),
            queue_id,
            result_code: last.get(&key.codebase).map(|run| run.code.clone()),
        };
        if request.action == BulkAction::Reschedule {
            let failed = |key: &QueueKey| {
                last.get(&key.codebase)
                    .is_some_and(|run| run.code.is_failure())
            };
            let chosen: Vec<&Candidate> = candidates
                .values()
                .filter(|c| failed(&c.key) && matches(&c.key))
                .collect();
            let queued = self.queue_again(&chosen, &request).await?;
            return Ok(chosen
                .iter()
                .zip(queued)
                .map(|(c, id)| affected(&c.key, id))
                .collect());
        }
        let waiting = self
            .queue
            .waiting(&request.campaign, request.codebase.clone())
            .await?;
        let waiting: Vec<QueueItem> = waiting
            .into_iter()
            .filter(|item| matches(&item.key))
            .collect();
        let ids: Vec<QueueId> = waiting.iter().map(|item| item.id).collect();
        let removed = if request.dry_run {
            ids.clone()
        } else {
            self.queue.remove(&ids).await?
        };
        if request.action == BulkAction::Reset {
            let chosen: Vec<&Candidate> = waiting
                .iter()
                .filter_map(|item| candidates.get(&item.key))
                .collect();
            self.queue_again(&chosen, &request).await?;
        }
        Ok(waiting
            .iter()
            .filter(|item| removed.contains(&item.id))
            .map(|item| affected(&item.key, Some(item.id)))
            .collect())
    }

    async fn queue_again(
        &self,
        chosen: &[&Candidate],
        request: &BulkRequest,
    ) -> Result<Vec<Option<QueueId>>, ServiceError> {
        if request.dry_run || chosen.is_empty() {
            return Ok(vec![None; chosen.len()]);
        }
        let keys: Vec<QueueKey> = chosen
            .iter()
            .map(|candidate| candidate.key.clone())
            .collect();
        let (facts, now) = (self.schedules.facts(&keys).await?, self.clock.now());
        let reset = request.action == BulkAction::Reset;
        let default = if reset {
            Bucket::Default
        } else {
            Bucket::Reschedule
        };
        let items = chosen.iter().zip(&facts).map(|(candidate, facts)| {
            let request = ScheduleRequest {
                bucket: request.bucket.unwrap_or(default),
                refresh: reset,
                requester: if reset { "reset" } else { "reschedule" }.to_owned(),
                context: None,
            };
            regular(candidate, facts, request, now).0
        });
        let queued = self
            .queue
            .enqueue(EnqueueBatch {
                items: items.collect(),
                settles: vec![],
                now,
            })
            .await?;
        Ok(queued
            .into_iter()
            .map(|queued| Some(queued.queue_id))
            .collect())
    }
}

fn manual(key: QueueKey, options: Options) -> ManualSchedule {
    ManualSchedule {
        key,
        bucket: options.bucket,
        offset: options.offset,
        refresh: options.refresh,
        requester: options.requester,
        estimated_duration: options.estimated_duration,
    }
}
