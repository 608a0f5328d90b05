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

/// The run that was continued.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ResumedResponse {
    pub(crate) run_id: String,
}

/// A run's result; also sent on the channel `result`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ResultResponse {
    pub(crate) codebase: String,
    pub(crate) campaign: String,
    pub(crate) change_set: String,
    pub(crate) log_id: String,
    pub(crate) description: Option<String>,
    pub(crate) code: String,
    #[schema(value_type = Object)]
    pub(crate) failure_details: Option<Value>,
    pub(crate) failure_stage: Option<String>,
    /// Seconds.
    pub(crate) duration: f64,
    pub(crate) finish_time: String,
    pub(crate) start_time: String,
    pub(crate) transient: Option<bool>,
    /// `{}` or `{name, details}`.
    #[schema(value_type = Object)]
    pub(crate) target: Value,
    pub(crate) logfilenames: Vec<String>,
    #[schema(value_type = Object)]
    pub(crate) codemod: Option<Value>,
    pub(crate) value: Option<i32>,
    #[schema(value_type = Object)]
    pub(crate) remotes: Option<Value>,
    pub(crate) branch_url: Option<String>,
    pub(crate) resume: Option<ResumedResponse>,
    /// `[role, name, base revision, revision]`.
    #[schema(value_type = Option<Vec<Vec<Option<String>>>>)]
    pub(crate) branches: Option<Vec<ResultBranch>>,
    /// `[name, revision]`.
    #[schema(value_type = Option<Vec<Vec<Option<String>>>>)]
    pub(crate) tags: Option<Vec<ResultTag>>,
    pub(crate) revision: Option<String>,
    pub(crate) main_branch_revision: Option<String>,
}

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

/// The answer to a finish.
#[derive(Debug, Serialize, ToSchema)]
pub struct FinishResponse {
    id: String,
    /// What was received, without `result.json`.
    filenames: Vec<String>,
    logs: Vec<String>,
    artifacts: Option<Vec<String>>,
    result: ResultResponse,
}

impl From<&Finished> for FinishResponse {
    fn from(finished: &Finished) -> Self {
        let run = &finished.run;
        Self {
            id: run.id.to_string(),
            filenames: run.filenames.clone(),
            logs: run.logfilenames.clone(),
            artifacts: run.artifacts.clone(),
            result: run.into(),
        }
    }
}

/// A decision about a run; also sent on the channel `publish-status`.
#[derive(Debug, Serialize, ToSchema)]
pub struct PublishStatusResponse {
    run_id: String,
    publish_status: String,
    codebase: String,
    campaign: String,
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

/// Every stored fact of a run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RunResponse {
    publish_status: String,
    pub(crate) queue_id: i64,
    pub(crate) command: String,
    pub(crate) worker: Option<String>,
    pub(crate) worker_link: Option<String>,
    pub(crate) context: Option<String>,
    pub(crate) instigated_context: Option<String>,
    pub(crate) vcs_type: Option<String>,
    pub(crate) subpath: Option<String>,
    pub(crate) target_branch_url: Option<String>,
    pub(crate) filenames: Vec<String>,
    pub(crate) artifacts: Option<Vec<String>>,
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
            result: run.into(),
        }
    }
}
