//! Finished runs.

use crate::{
    domain::{
        run::{ResultBranch, ResultTag, Run, Target},
        time::iso,
    },
    services::finish::Finished,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

/// The earlier run that a run resumed from.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ResumedResponse {
    /// The id of the earlier run.
    pub(crate) run_id: String,
}

/// The result of a run; also published on the channel `result`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ResultResponse {
    /// The name of the codebase.
    pub(crate) codebase: String,
    /// The name of the campaign.
    pub(crate) campaign: String,
    /// The change set that the run belongs to: its own id if no other.
    pub(crate) change_set: String,
    /// The id of the run.
    pub(crate) log_id: String,
    /// What the codemod did, in words.
    pub(crate) description: Option<String>,
    /// `success`, `nothing-to-do`, `nothing-new-to-do` or the code of a failure.
    pub(crate) code: String,
    /// Details of the failure, which depend on its code.
    #[schema(value_type = Object)]
    pub(crate) failure_details: Option<Value>,
    /// The stage in which it failed.
    pub(crate) failure_stage: Option<String>,
    /// The seconds from start to finish.
    pub(crate) duration: f64,
    /// The time at which it finished.
    pub(crate) finish_time: String,
    /// The time at which it started.
    pub(crate) start_time: String,
    /// Whether a repeat may cure the failure.
    pub(crate) transient: Option<bool>,
    /// What was built: `{}` or `{name, details}`.
    #[schema(value_type = Object)]
    pub(crate) target: Value,
    /// The names of its logs.
    pub(crate) logfilenames: Vec<String>,
    /// What the codemod reported.
    #[schema(value_type = Object)]
    pub(crate) codemod: Option<Value>,
    /// How much the change is worth, relative to others.
    pub(crate) value: Option<i32>,
    /// The remotes that the result refers to, by name.
    #[schema(value_type = Object)]
    pub(crate) remotes: Option<Value>,
    /// The URL of the branch that was changed.
    pub(crate) branch_url: Option<String>,
    /// The earlier run that it resumed from; null when it started afresh.
    pub(crate) resume: Option<ResumedResponse>,
    /// The changed branches: `[role, name, base revision, revision]`.
    #[schema(value_type = Option<Vec<Vec<Option<String>>>>)]
    pub(crate) branches: Option<Vec<ResultBranch>>,
    /// The new tags: `[name, revision]`.
    #[schema(value_type = Option<Vec<Vec<Option<String>>>>)]
    pub(crate) tags: Option<Vec<ResultTag>>,
    /// The revision of the result.
    pub(crate) revision: Option<String>,
    /// The revision of the main branch that the run started from.
    pub(crate) main_branch_revision: Option<String>,
}

/// Returns what was built in the form of the Python runner.
fn target(target: Option<&Target>) -> Value {
    match target {
        None => json!({}),
        Some(Target::Generic { details }) => json!({ "name": "generic", "details": details }),
        Some(Target::Debian(package)) => json!({ "name": "debian", "details": {
            "build_distribution": package.distribution,
            "build_version": package.version,
            "changes_filenames": package.changes_filenames,
            "lintian": package.lintian,
            "binary_packages": package.binary_packages,
        } }),
    }
}

impl From<&Run> for ResultResponse {
    fn from(run: &Run) -> Self {
        Self {
            codebase: run.codebase.to_string(),
            campaign: run.campaign.to_string(),
            change_set: run.change_set.clone(),
            log_id: run.id.to_string(),
            description: run.description.clone(),
            code: run.code.to_string(),
            failure_details: run.failure_details.clone(),
            failure_stage: run.failure_stage.clone(),
            duration: run.duration(),
            finish_time: iso(run.finish_time),
            start_time: iso(run.start_time),
            transient: run.transient,
            target: target(run.target.as_ref()),
            logfilenames: run.logfilenames.clone(),
            codemod: run.codemod.clone(),
            value: run.value,
            remotes: run.remotes.clone(),
            branch_url: run.branch_url.clone(),
            resume: run.resume_from.as_ref().map(|id| ResumedResponse {
                run_id: id.to_string(),
            }),
            branches: run.branches.clone(),
            tags: run.tags.clone(),
            revision: run.revision.clone(),
            main_branch_revision: run.main_branch_revision.clone(),
        }
    }
}

/// The outcome of finishing a run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FinishResponse {
    /// The id of the run.
    pub(crate) id: String,
    /// The names of the files that were received, without `result.json`.
    pub(crate) filenames: Vec<String>,
    /// The names of the stored logs.
    pub(crate) logs: Vec<String>,
    /// The names of the stored artifacts; null when nothing was built.
    pub(crate) artifacts: Option<Vec<String>>,
    /// The result that was stored.
    pub(crate) result: ResultResponse,
}

impl From<&Finished> for FinishResponse {
    fn from(finished: &Finished) -> Self {
        let run = &finished.run;
        let mut result = ResultResponse::from(run);
        if let Some((start, finish)) = &run.report.repeated_times {
            result.start_time.clone_from(start);
            result.finish_time.clone_from(finish);
        }
        Self {
            id: run.id.to_string(),
            filenames: run.filenames.clone(),
            logs: run.logfilenames.clone(),
            artifacts: run.artifacts.clone(),
            result,
        }
    }
}

/// The publish status to set.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PublishStatusRequest {
    /// One of unknown, blocked, needs-manual-review, rejected, approved, ignored.
    pub publish_status: String,
}

/// The publish status of a run; also published on the channel `publish-status`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PublishStatusResponse {
    /// The id of the run.
    pub(crate) run_id: String,
    /// One of unknown, blocked, needs-manual-review, rejected, approved, ignored.
    publish_status: String,
    /// The name of the codebase.
    pub(crate) codebase: String,
    /// The name of the campaign.
    pub(crate) campaign: String,
}

impl From<&Run> for PublishStatusResponse {
    fn from(run: &Run) -> Self {
        Self {
            run_id: run.id.to_string(),
            publish_status: run.publish_status.to_string(),
            codebase: run.codebase.to_string(),
            campaign: run.campaign.to_string(),
        }
    }
}

/// What the publisher needs to know of a run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BriefRunResponse {
    /// The name of the campaign.
    pub(crate) campaign: String,
    /// The name of the codebase.
    pub(crate) codebase: String,
    /// One of unknown, blocked, needs-manual-review, rejected, approved, ignored.
    publish_status: String,
}

impl From<&Run> for BriefRunResponse {
    fn from(run: &Run) -> Self {
        Self {
            campaign: run.campaign.to_string(),
            codebase: run.codebase.to_string(),
            publish_status: run.publish_status.to_string(),
        }
    }
}

/// A run with all that is stored of it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RunResponse {
    /// One of unknown, blocked, needs-manual-review, rejected, approved, ignored.
    publish_status: String,
    /// The id of its queue item.
    pub(crate) queue_id: i64,
    /// The command of the codemod.
    pub(crate) command: String,
    /// The name of its worker.
    pub(crate) worker: Option<String>,
    /// A page about the worker, for people to read.
    pub(crate) worker_link: Option<String>,
    /// What the result depends on, as the codemod reported it.
    pub(crate) context: Option<String>,
    /// The context of the queue item.
    pub(crate) instigated_context: Option<String>,
    /// The version control system of the branch.
    pub(crate) vcs_type: Option<String>,
    /// The folder of the codebase within the branch.
    pub(crate) subpath: Option<String>,
    /// The URL of the branch that the change is meant for.
    pub(crate) target_branch_url: Option<String>,
    /// The names of the uploaded files, in the order of the upload.
    pub(crate) filenames: Vec<String>,
    /// The names of the stored artifacts; null when nothing was built.
    pub(crate) artifacts: Option<Vec<String>>,
    /// The start by the worker's clock as it was reported, where another time is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reported_start_time: Option<String>,
    /// The end by the worker's clock as it was reported, where another time is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) reported_finish_time: Option<String>,
    /// What of the report and its files was not understood, was changed or left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) report_notes: Vec<String>,
    #[serde(flatten)]
    pub(crate) result: ResultResponse,
}

impl From<&Run> for RunResponse {
    fn from(run: &Run) -> Self {
        Self {
            publish_status: run.publish_status.to_string(),
            queue_id: run.queue_id,
            command: run.command.clone(),
            worker: run.worker.clone(),
            worker_link: run.worker_link.clone(),
            context: run.context.clone(),
            instigated_context: run.instigated_context.clone(),
            vcs_type: run.vcs_type.map(|vcs| vcs.to_string()),
            subpath: run.subpath.clone(),
            target_branch_url: run.target_branch_url.clone(),
            filenames: run.filenames.clone(),
            artifacts: run.artifacts.clone(),
            reported_start_time: run.report.start_time.clone(),
            reported_finish_time: run.report.finish_time.clone(),
            report_notes: run.report.notes.clone(),
            result: run.into(),
        }
    }
}
