//! What a worker is handed.

use crate::domain::{assignment::Assignment, build::Build, run::ResultBranch, time::iso};
use serde::Serialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The branch to change.
#[derive(Debug, Serialize, ToSchema)]
struct BranchResponse {
    #[serde(rename = "default-empty")]
    default_empty: bool,
    url: Option<String>,
    subpath: Option<String>,
    vcs_type: Option<String>,
    cached_url: Option<String>,
    additional_colocated_branches: Option<Vec<String>>,
}

/// What to continue from.
#[derive(Debug, Serialize, ToSchema)]
struct ResumeResponse {
    run_id: String,
    #[schema(value_type = Object)]
    result: Option<Value>,
    branch_url: String,
    #[schema(value_type = Vec<Vec<Option<String>>>)]
    branches: Vec<ResultBranch>,
}

/// What to build.
#[derive(Debug, Serialize, ToSchema)]
struct BuildResponse {
    target: String,
    environment: BTreeMap<String, String>,
    #[schema(value_type = Object)]
    config: Map<String, Value>,
}

/// The script.
#[derive(Debug, Serialize, ToSchema)]
struct CodemodResponse {
    command: String,
    environment: BTreeMap<String, String>,
}

/// Where the result goes.
#[derive(Debug, Serialize, ToSchema)]
struct TargetRepositoryResponse {
    url: Option<String>,
    vcs_type: Option<String>,
}

/// What a worker is handed for one queue item.
#[derive(Debug, Serialize, ToSchema)]
pub struct AssignmentResponse {
    /// The id of the active run; it becomes the run's.
    pub id: String,
    description: String,
    queue_id: i64,
    branch: BranchResponse,
    resume: Option<ResumeResponse>,
    build: BuildResponse,
    command: String,
    codebase: String,
    codemod: CodemodResponse,
    env: BTreeMap<String, String>,
    campaign: String,
    #[serde(rename = "force-build")]
    force_build: bool,
    #[serde(rename = "skip-setup-validation")]
    skip_setup_validation: bool,
    target_repository: TargetRepositoryResponse,
    /// Until when the worker has it for sure; absent unless it asked for a lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_until: Option<String>,
}

impl AssignmentResponse {
    /// The shape for a worker; those of the newer generation read neither a null VCS type nor a null subpath.
    pub fn new(assignment: Assignment, newer: bool) -> Self {
        let key = assignment.run.item.key;
        let vcs_type = assignment
            .vcs_type
            .map(|vcs| vcs.to_string())
            .or_else(|| newer.then(|| "git".to_owned()));
        let Build {
            target,
            environment,
            config,
        } = assignment.build;
        Self {
            id: assignment.run.id.to_string(),
            description: format!("{} on {}", key.campaign, key.codebase),
            queue_id: assignment.run.item.id,
            branch: BranchResponse {
                default_empty: assignment.default_empty,
                url: assignment.branch_url,
                subpath: assignment.subpath.or_else(|| newer.then(String::new)),
                vcs_type: vcs_type.clone(),
                cached_url: assignment.cached_url,
                additional_colocated_branches: None,
            },
            resume: assignment.resume.map(|resume| ResumeResponse {
                run_id: resume.run_id.to_string(),
                result: resume.result,
                branch_url: resume.branch_url,
                branches: resume.branches,
            }),
            build: BuildResponse {
                target,
                environment,
                config,
            },
            codemod: CodemodResponse {
                command: assignment.command.clone(),
                environment: BTreeMap::new(),
            },
            command: assignment.command,
            codebase: key.codebase.to_string(),
            env: assignment.env,
            campaign: key.campaign.to_string(),
            force_build: assignment.force_build,
            skip_setup_validation: assignment.skip_setup_validation,
            lease_until: assignment.run.lease_until.map(iso),
            target_repository: TargetRepositoryResponse {
                url: assignment.target_repository_url,
                vcs_type,
            },
        }
    }
}
