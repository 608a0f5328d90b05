//! The queue, and runs that are scheduled by hand.

use super::number;
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
use std::borrow::Cow;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A queue item.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct QueueItemResponse {
    /// The id of the queue item.
    pub(crate) queue_id: i64,
    /// The name of the codebase.
    pub(crate) codebase: String,
    /// The name of the campaign.
    pub(crate) campaign: String,
    /// What the run depends on, as the finder of its candidate describes it.
    pub(crate) context: Option<String>,
    /// The command of the codemod.
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

/// The position of a pair in the queue; nulls when it is not queued.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct PositionResponse {
    /// The position in the queue; that of the first item is 1.
    pub(crate) position: Option<u64>,
    /// The expected seconds until it is assigned, with as many workers as are busy now.
    pub(crate) wait_time: Option<f64>,
    /// The expected seconds of work in all items before it.
    pub(crate) cumulative_wait_time: Option<f64>,
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

/// A run to schedule: of a codebase, or the same as an earlier run.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct ScheduleRunRequest {
    /// The earlier run to repeat; wins over a codebase.
    pub(crate) run_id: Option<String>,
    /// The name of the campaign.
    pub(crate) campaign: Option<String>,
    /// The name of the codebase.
    pub(crate) codebase: Option<String>,
    /// The revision of the main branch to build; only for control runs.
    pub(crate) main_branch_revision: Option<String>,
    /// Whether to start afresh instead of resuming from an earlier run.
    pub(crate) refresh: Option<bool>,
    /// The change set that the run belongs to.
    pub(crate) change_set: Option<String>,
    /// Who asks for it.
    pub(crate) requester: Option<String>,
    /// The bucket of the queue to schedule it in.
    pub(crate) bucket: Option<String>,
    /// The distance behind the first item at which to queue it.
    #[serde(default, deserialize_with = "number::or_text")]
    pub(crate) offset: Option<f64>,
    /// The expected duration, in seconds.
    #[serde(default, deserialize_with = "number::or_text")]
    pub(crate) estimated_duration: Option<f64>,
    /// `reschedule`, `deschedule` or `reset`: applies to many items instead of one.
    pub(crate) action: Option<String>,
    /// With an action: only runs that ended with this code.
    pub(crate) result_code: Option<String>,
    /// With an action: only candidates whose estimated probability of success is at least this.
    #[serde(default, deserialize_with = "number::or_text")]
    pub(crate) min_success_chance: Option<f64>,
    /// With an action: only return what would be affected.
    pub(crate) dry_run: Option<bool>,
}

impl ScheduleRunRequest {
    /// Returns whether the request has an action, which applies to many items.
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

    /// Returns what to run, the revision of the main branch, and how to run it.
    ///
    /// # Errors
    ///
    /// When neither run nor codebase is named, or a name is not valid.
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

    /// Returns the action and what it applies to.
    ///
    /// # Errors
    ///
    /// When the action is not known, no campaign is named, or a name is not valid.
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

/// A run that was scheduled by hand.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ScheduleResponse {
    /// The name of the campaign.
    pub(crate) campaign: String,
    /// The distance behind the first item at which it was queued.
    pub(crate) offset: f64,
    /// The bucket of the queue that it is in.
    pub(crate) bucket: Cow<'static, str>,
    /// The name of the codebase.
    pub(crate) codebase: String,
    /// The id of its queue item.
    pub(crate) queue_id: i64,
    /// The expected duration, in seconds.
    pub(crate) estimated_duration_seconds: f64,
}

impl From<Scheduled> for ScheduleResponse {
    fn from(scheduled: Scheduled) -> Self {
        Self {
            campaign: scheduled.campaign.into(),
            offset: scheduled.offset,
            bucket: scheduled.bucket.as_str().into(),
            codebase: scheduled.codebase.into(),
            queue_id: scheduled.queue_id,
            estimated_duration_seconds: scheduled.estimated_duration,
        }
    }
}

/// An item that was affected, or would be.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct AffectedResponse {
    /// The name of the codebase.
    pub(crate) codebase: String,
    /// The name of the campaign.
    pub(crate) campaign: String,
    /// The change set that it is of; null when a run makes one of its own.
    pub(crate) change_set: Option<String>,
    /// The id of the queue item; null when there is none.
    pub(crate) queue_id: Option<i64>,
    /// The code with which its last run ended, where that was asked for.
    pub(crate) result_code: Option<String>,
}

/// The outcome of an action that applies to many items.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BulkResponse {
    /// `reschedule`, `deschedule` or `reset`.
    pub(crate) action: Cow<'static, str>,
    /// The number of affected items.
    pub(crate) affected_count: usize,
    /// Whether nothing was changed.
    pub(crate) dry_run: bool,
    /// The affected items.
    pub(crate) items: Vec<AffectedResponse>,
}

impl BulkResponse {
    /// Creates the response for the affected items.
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
            action: action.into(),
            affected_count: items.len(),
            dry_run,
            items,
        }
    }
}

/// The number of runs that were finished within a period.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FinishedResponse {
    /// All runs.
    pub(crate) total: u64,
    /// Runs that ended with `success`.
    pub(crate) success: u64,
    /// Runs that ended with `nothing-to-do` or `nothing-new-to-do`.
    pub(crate) nothing_to_do: u64,
    /// Runs that failed.
    pub(crate) failure: u64,
    /// Runs by result code.
    pub(crate) by_code: BTreeMap<String, u64>,
}

impl From<&FinishedCounts> for FinishedResponse {
    fn from(counts: &FinishedCounts) -> Self {
        let sum = |matches: &dyn Fn(&ResultCode) -> bool| {
            counts
                .iter()
                .filter(|(code, _)| matches(code))
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
    /// The number of queue items.
    pub(crate) queue_length: u64,
    /// The number of active runs.
    pub(crate) active_runs: u64,
    /// The number of queue items in each bucket.
    #[schema(value_type = Object)]
    pub(crate) by_bucket: BTreeMap<Bucket, u64>,
    /// The number of queue items of each campaign; absent on the public API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) by_campaign: Option<BTreeMap<String, u64>>,
    /// The seconds for which the oldest item has waited; null when the queue is empty.
    pub(crate) oldest_wait_seconds: Option<f64>,
    /// The finished runs by period: `last_hour` and `last_day`.
    pub(crate) finished: BTreeMap<Cow<'static, str>, FinishedResponse>,
}

impl QueueStatsResponse {
    /// Creates the response, with or without the names of campaigns.
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
