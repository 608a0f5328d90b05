//! The queue, and runs queued by hand.

use crate::{
    domain::{
        Invalid,
        name::{CampaignName, CodebaseName, RunId},
        queue::{Bucket, QueueItem},
        run::ResultCode,
    },
    ports::run_store::FinishedCounts,
    services::{
        overview::{QueueFigures, Wait},
        schedule::{Affected, BulkAction, BulkRequest, Options, Scheduled, Subject},
    },
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};
use utoipa::ToSchema;

/// A queue item.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct QueueItemResponse {
    pub(crate) queue_id: i64,
    pub(crate) codebase: String,
    pub(crate) campaign: String,
    pub(crate) context: Option<String>,
    pub(crate) command: String,
}

impl From<QueueItem> for QueueItemResponse {
    fn from(item: QueueItem) -> Self {
        Self {
            queue_id: item.id,
            codebase: item.key.codebase.into(),
            campaign: item.key.campaign.into(),
            context: item.context,
            command: item.command,
        }
    }
}

/// Where a pair stands; nulls when it is not queued. Times in seconds.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct PositionResponse {
    position: Option<u64>,
    wait_time: Option<f64>,
    cumulative_wait_time: Option<f64>,
}

impl From<Option<Wait>> for PositionResponse {
    fn from(wait: Option<Wait>) -> Self {
        wait.map_or_else(Self::default, |wait| Self {
            position: Some(wait.position),
            wait_time: Some(wait.wait_time),
            cumulative_wait_time: Some(wait.cumulative_wait_time),
        })
    }
}

/// What to run, and how. Either `run_id` or a codebase.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct ScheduleRunRequest {
    run_id: Option<String>,
    campaign: Option<String>,
    codebase: Option<String>,
    main_branch_revision: Option<String>,
    refresh: Option<bool>,
    change_set: Option<String>,
    requester: Option<String>,
    bucket: Option<String>,
    offset: Option<f64>,
    /// Seconds.
    estimated_duration: Option<f64>,
    /// `reschedule`, `deschedule` or `reset`: many at once.
    action: Option<String>,
    result_code: Option<String>,
    min_success_chance: Option<f64>,
    dry_run: Option<bool>,
}

impl ScheduleRunRequest {
    /// Whether many are meant.
    pub fn is_bulk(&self) -> bool {
        self.action.is_some()
    }

    fn campaign(&self) -> Result<Option<CampaignName>, Invalid> {
        self.campaign.clone().map(CampaignName::new).transpose()
    }

    fn codebase(&self) -> Result<Option<CodebaseName>, Invalid> {
        self.codebase.clone().map(CodebaseName::new).transpose()
    }

    fn bucket(&self) -> Result<Option<Bucket>, Invalid> {
        self.bucket.as_deref().map(str::parse).transpose()
    }

    /// What to run, and how.
    pub fn single(self) -> Result<(Subject, Option<String>, Options), Invalid> {
        let subject = match (self.run_id.clone(), self.codebase()?) {
            (Some(id), _) => Subject::Run(RunId::new(id)),
            (None, Some(codebase)) => Subject::Pair {
                codebase,
                campaign: self.campaign()?,
            },
            (None, None) => {
                return Err(Invalid::new(
                    "codebase",
                    "neither run_id nor codebase is given",
                ));
            }
        };
        let options = Options {
            bucket: self.bucket()?,
            offset: self.offset,
            refresh: self.refresh.unwrap_or(false),
            change_set: self.change_set,
            requester: self.requester,
            estimated_duration: self.estimated_duration,
        };
        Ok((subject, self.main_branch_revision, options))
    }

    /// What to do with which ones.
    pub fn bulk(self) -> Result<BulkRequest, Invalid> {
        let action = match self.action.as_deref() {
            Some("reschedule") => BulkAction::Reschedule,
            Some("deschedule") => BulkAction::Deschedule,
            Some("reset") => BulkAction::Reset,
            _ => {
                return Err(Invalid::new(
                    "action",
                    "is none of reschedule, deschedule, reset",
                ));
            }
        };
        Ok(BulkRequest {
            action,
            campaign: self
                .campaign()?
                .ok_or_else(|| Invalid::new("campaign", "is missing"))?,
            codebase: self.codebase()?,
            bucket: self.bucket()?,
            result_code: self.result_code.map(ResultCode::new),
            min_success_chance: self.min_success_chance,
            dry_run: self.dry_run.unwrap_or(false),
        })
    }
}

/// A run that was queued by hand.
#[derive(Debug, Serialize, ToSchema)]
pub struct ScheduleResponse {
    campaign: String,
    offset: f64,
    bucket: &'static str,
    codebase: String,
    queue_id: i64,
    estimated_duration_seconds: f64,
}

impl From<Scheduled> for ScheduleResponse {
    fn from(scheduled: Scheduled) -> Self {
        Self {
            campaign: scheduled.campaign.into(),
            offset: scheduled.offset,
            bucket: scheduled.bucket.as_str(),
            codebase: scheduled.codebase.into(),
            queue_id: scheduled.queue_id,
            estimated_duration_seconds: scheduled.estimated_duration,
        }
    }
}

/// One that was or would be affected.
#[derive(Debug, Serialize, ToSchema)]
struct AffectedResponse {
    codebase: String,
    campaign: String,
    change_set: Option<String>,
    queue_id: Option<i64>,
    result_code: Option<String>,
}

/// What was done with many.
#[derive(Debug, Serialize, ToSchema)]
pub struct BulkResponse {
    action: &'static str,
    affected_count: usize,
    dry_run: bool,
    items: Vec<AffectedResponse>,
}

impl BulkResponse {
    /// The shape of what was affected.
    pub fn new(action: BulkAction, dry_run: bool, affected: Vec<Affected>) -> Self {
        let action = match action {
            BulkAction::Reschedule => "reschedule",
            BulkAction::Deschedule => "deschedule",
            BulkAction::Reset => "reset",
        };
        let items = affected.into_iter().map(|affected| AffectedResponse {
            codebase: affected.key.codebase.into(),
            campaign: affected.key.campaign.into(),
            change_set: affected.key.change_set,
            queue_id: affected.queue_id,
            result_code: affected.result_code.map(|code| code.to_string()),
        });
        let items: Vec<_> = items.collect();
        Self {
            action,
            affected_count: items.len(),
            dry_run,
            items,
        }
    }
}

/// Runs that ended within a time.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FinishedResponse {
    pub(crate) total: u64,
    pub(crate) success: u64,
    pub(crate) nothing_to_do: u64,
    pub(crate) failure: u64,
    pub(crate) by_code: BTreeMap<String, u64>,
}

impl From<&FinishedCounts> for FinishedResponse {
    fn from(counts: &FinishedCounts) -> Self {
        let sum = |wanted: &dyn Fn(&ResultCode) -> bool| {
            counts
                .iter()
                .filter(|(code, _)| wanted(code))
                .map(|(_, count)| count)
                .sum()
        };
        Self {
            total: sum(&|_| true),
            success: sum(&ResultCode::is_success),
            nothing_to_do: sum(&|code| !code.is_success() && !code.is_failure()),
            failure: sum(&ResultCode::is_failure),
            by_code: counts
                .iter()
                .map(|(code, count)| (code.to_string(), *count))
                .collect(),
        }
    }
}

/// Figures about the queue.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct QueueStatsResponse {
    pub(crate) queue_length: u64,
    pub(crate) active_runs: u64,
    #[schema(value_type = Object)]
    pub(crate) by_bucket: BTreeMap<Bucket, u64>,
    /// Not on the public API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) by_campaign: Option<BTreeMap<String, u64>>,
    pub(crate) oldest_wait_seconds: Option<f64>,
    /// By time: `last_hour` and `last_day`.
    pub(crate) finished: BTreeMap<Cow<'static, str>, FinishedResponse>,
}

impl QueueStatsResponse {
    /// The figures, with or without names.
    pub fn new(figures: QueueFigures, with_names: bool) -> Self {
        Self {
            queue_length: figures.queue_length,
            active_runs: figures.active_runs,
            by_bucket: figures.by_bucket,
            by_campaign: with_names.then_some(figures.by_campaign),
            oldest_wait_seconds: figures.oldest_wait_seconds,
            finished: BTreeMap::from([
                ("last_hour".into(), (&figures.last_hour).into()),
                ("last_day".into(), (&figures.last_day).into()),
            ]),
        }
    }
}
