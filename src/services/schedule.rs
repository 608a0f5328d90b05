//! Schedules runs that somebody asks for, one or many.

use super::{CoordinatorConfig, ServiceError};
use crate::{
    domain::{
        Invalid,
        candidate::Candidate,
        command,
        manual_schedule::{ManualSchedule, control_command},
        name::{CampaignName, CodebaseName, RunId},
        queue::{Bucket, EnqueueRequest, QueueId, QueueItem, QueueKey},
        run::{ResultCode, Run},
        schedule::{ScheduleFacts, ScheduleRequest, regular},
    },
    ports::{Catalog, Clock, QueueStore, RunStore, ScheduleStore, queue_store::EnqueueBatch},
};
use std::{collections::BTreeMap, sync::Arc};

/// The campaign of control runs.
const CONTROL_CAMPAIGN: &str = "control";

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The same as an earlier run.
    Run(RunId),
    /// A codebase and a campaign.
    Pair {
        /// The codebase.
        codebase: CodebaseName,
        /// The campaign. A control run ignores it, because it has a campaign of its own.
        campaign: Option<CampaignName>,
    },
}

/// How it is to be run; each option has a default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// See [`ManualSchedule::bucket`].
    pub bucket: Option<Bucket>,
    /// See [`ManualSchedule::offset`].
    pub offset: Option<f64>,
    /// See [`ManualSchedule::refresh`].
    pub refresh: bool,
    /// The change set; `None` means that of the earlier run, if it had one.
    pub change_set: Option<String>,
    /// See [`ManualSchedule::requester`].
    pub requester: Option<String>,
    /// See [`ManualSchedule::estimated_duration`].
    pub estimated_duration: Option<f64>,
}

/// A run that was enqueued on request.
#[derive(Debug, Clone, PartialEq)]
pub struct Scheduled {
    /// The campaign.
    pub campaign: CampaignName,
    /// The codebase.
    pub codebase: CodebaseName,
    /// The id of its queue item.
    pub queue_id: QueueId,
    /// The bucket that the item is in now.
    pub bucket: Bucket,
    /// The offset of the request.
    pub offset: f64,
    /// The estimated duration, in seconds.
    pub estimated_duration: f64,
}

/// An action on all candidates or items that match a [`BulkRequest`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkAction {
    /// Enqueue the candidates whose last effective run failed.
    Reschedule,
    /// Remove the items that are not claimed.
    Deschedule,
    /// Remove the items that are not claimed, and schedule their candidates afresh.
    Reset,
}

/// A request to apply an action to all that match.
#[derive(Debug, Clone, PartialEq)]
pub struct BulkRequest {
    /// The action.
    pub action: BulkAction,
    /// Only this campaign.
    pub campaign: CampaignName,
    /// Only this codebase.
    pub codebase: Option<CodebaseName>,
    /// Only those whose last effective run had this code.
    pub result_code: Option<ResultCode>,
    /// Only those whose candidate has at least this chance of success, from 0 to 1.
    pub min_success_chance: Option<f64>,
    /// The bucket of the items that are enqueued.
    pub bucket: Option<Bucket>,
    /// Whether to return what would be affected without changing anything.
    pub dry_run: bool,
}

/// A candidate or item that was, or would be, affected.
#[derive(Debug, Clone, PartialEq)]
pub struct Affected {
    /// The codebase, the campaign and the change set.
    pub key: QueueKey,
    /// The id of the item; `None` for one that would be enqueued.
    pub queue_id: Option<QueueId>,
    /// The code of the last effective run.
    pub result_code: Option<ResultCode>,
}

/// The candidates of a bulk request, with the last effective run of each codebase.
struct Selection {
    last_effective: BTreeMap<CodebaseName, Run>,
    candidates: BTreeMap<QueueKey, Candidate>,
}

impl Selection {
    fn result_code(&self, key: &QueueKey) -> Option<&ResultCode> {
        self.last_effective.get(&key.codebase).map(|run| &run.code)
    }

    fn has_failed(&self, key: &QueueKey) -> bool {
        self.result_code(key).is_some_and(ResultCode::is_failure)
    }

    fn matches(&self, key: &QueueKey, request: &BulkRequest) -> bool {
        let chance = self.candidates.get(key).and_then(|c| c.success_chance);
        let code_matches =
            request.result_code.is_none() || self.result_code(key) == request.result_code.as_ref();
        code_matches
            && request
                .min_success_chance
                .is_none_or(|min| chance.is_some_and(|chance| chance >= min))
    }

    fn affected(&self, key: &QueueKey, queue_id: Option<QueueId>) -> Affected {
        Affected {
            key: key.clone(),
            queue_id,
            result_code: self.result_code(key).cloned(),
        }
    }
}

/// Schedules runs that somebody asks for.
pub struct Scheduler {
    catalog: Arc<dyn Catalog>,
    schedules: Arc<dyn ScheduleStore>,
    runs: Arc<dyn RunStore>,
    queue: Arc<dyn QueueStore>,
    clock: Arc<dyn Clock>,
    config: Arc<CoordinatorConfig>,
}

fn validate(options: &Options) -> Result<(), Invalid> {
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
    /// Creates the service on these ports.
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

    /// Returns the candidate that a pair has, whatever its change set: the one without, else the
    /// oldest.
    async fn candidate_of_pair(&self, key: &QueueKey) -> Result<Option<Candidate>, ServiceError> {
        let candidates = self
            .catalog
            .candidates(Some(key.codebase.clone()), usize::MAX)
            .await?;
        Ok(candidates
            .into_iter()
            .filter(|candidate| candidate.key.campaign == key.campaign)
            .min_by_key(|candidate| (candidate.key.change_set.is_some(), candidate.id)))
    }

    async fn enqueue(&self, request: EnqueueRequest) -> Result<Scheduled, ServiceError> {
        let (codebase, campaign, offset) = (
            request.key.codebase.clone(),
            request.key.campaign.clone(),
            request.offset,
        );
        let estimated_duration = request.estimated_duration.unwrap_or_default();
        let batch = EnqueueBatch {
            items: vec![request],
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

    /// Schedules a run of a pair, or a repeat of an earlier run.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NotFound`] when there is no such run or codebase; [`ServiceError::Invalid`]
    /// when an option is invalid or the campaign is missing; [`ServiceError::NoCommand`] when no
    /// command is known.
    #[tracing::instrument(name = "services.schedule.one", skip_all, fields(subject = ?subject))]
    pub async fn schedule(
        &self,
        subject: Subject,
        options: Options,
    ) -> Result<Scheduled, ServiceError> {
        validate(&options)?;
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
        let candidate = match facts.candidate {
            Some(candidate) => Some(candidate),
            None => self.candidate_of_pair(&key).await?,
        };
        let of_candidate = candidate
            .as_ref()
            .map(|candidate| candidate.command.clone());
        let of_campaign = campaign.and_then(|campaign| campaign.command.clone());
        // An empty command is none: the next one that is known applies.
        let command = [of_candidate, of_campaign, earlier_command]
            .into_iter()
            .flatten()
            .find(|command| !command.trim().is_empty());
        command.as_deref().map(command::validate).transpose()?;
        let context = candidate.and_then(|candidate| candidate.context);
        let manual = manual(key, options);
        self.enqueue(manual.enqueue(
            command.ok_or(ServiceError::NoCommand)?,
            context,
            Bucket::Default,
            facts.means,
        ))
        .await
    }

    /// Schedules a control run, which only brings the codebase's main branch to a revision, to show
    /// what happens without the change.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NotFound`] when there is no such run or codebase; [`ServiceError::Invalid`]
    /// when an option is invalid or the revision is missing.
    #[tracing::instrument(name = "services.schedule.control", skip_all, fields(subject = ?subject))]
    pub async fn schedule_control(
        &self,
        subject: Subject,
        revision: Option<String>,
        options: Options,
    ) -> Result<Scheduled, ServiceError> {
        validate(&options)?;
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
        let campaign = CampaignName::new(CONTROL_CAMPAIGN)?;
        let key = QueueKey {
            codebase,
            campaign,
            change_set: options.change_set.clone(),
        };
        let facts = self.facts(&key).await?;
        self.enqueue(manual(key, options).enqueue(command, None, Bucket::Control, facts.means))
            .await
    }

    /// Applies an action to all candidates or pending items that match, and returns those that
    /// were, or would be, affected.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Fault`] when a store fails.
    #[tracing::instrument(
        name = "services.schedule.bulk",
        skip_all,
        fields(campaign = %request.campaign, action = ?request.action, dry_run = request.dry_run)
    )]
    pub async fn bulk(&self, request: BulkRequest) -> Result<Vec<Affected>, ServiceError> {
        let selection = self.selection(&request).await?;
        match request.action {
            BulkAction::Reschedule => self.reschedule(&selection, &request).await,
            BulkAction::Deschedule | BulkAction::Reset => {
                self.deschedule(&selection, &request).await
            }
        }
    }

    async fn selection(&self, request: &BulkRequest) -> Result<Selection, ServiceError> {
        let last_effective = self
            .schedules
            .last_effective_runs(&request.campaign)
            .await?
            .into_iter()
            .map(|run| (run.codebase.clone(), run))
            .collect();
        let candidates = self
            .catalog
            .candidates(request.codebase.clone(), usize::MAX)
            .await?
            .into_iter()
            .filter(|c| c.key.campaign == request.campaign)
            .map(|c| (c.key.clone(), c))
            .collect();
        Ok(Selection {
            last_effective,
            candidates,
        })
    }

    /// Enqueues the matching candidates whose last effective run failed.
    async fn reschedule(
        &self,
        selection: &Selection,
        request: &BulkRequest,
    ) -> Result<Vec<Affected>, ServiceError> {
        let chosen: Vec<&Candidate> = selection
            .candidates
            .values()
            .filter(|c| selection.has_failed(&c.key) && selection.matches(&c.key, request))
            .collect();
        let queued = self.enqueue_again(&chosen, request).await?;
        Ok(chosen
            .iter()
            .zip(queued)
            .map(|(c, id)| selection.affected(&c.key, id))
            .collect())
    }

    /// Removes the matching pending items, and enqueues their candidates again for a reset.
    async fn deschedule(
        &self,
        selection: &Selection,
        request: &BulkRequest,
    ) -> Result<Vec<Affected>, ServiceError> {
        let pending: Vec<QueueItem> = self
            .queue
            .waiting(&request.campaign, request.codebase.clone())
            .await?
            .into_iter()
            .filter(|item| selection.matches(&item.key, request))
            .collect();
        let ids: Vec<QueueId> = pending.iter().map(|item| item.id).collect();
        let removed = if request.dry_run {
            ids
        } else {
            self.queue.remove(&ids).await?
        };
        if request.action == BulkAction::Reset {
            let chosen: Vec<&Candidate> = pending
                .iter()
                .filter_map(|item| selection.candidates.get(&item.key))
                .collect();
            self.enqueue_again(&chosen, request).await?;
        }
        // Items that were claimed in the meantime were not removed.
        Ok(pending
            .iter()
            .filter(|item| removed.contains(&item.id))
            .map(|item| selection.affected(&item.key, Some(item.id)))
            .collect())
    }

    async fn enqueue_again(
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
