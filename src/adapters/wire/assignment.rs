//! The assignment of a queue item to a worker.

use crate::domain::{
    assignment::{Assignment, ColocatedBranches},
    branch_query::ColocatedRole,
    build::Build,
    resume::Resume,
    run::ResultBranch,
    time::iso,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The branch to change.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct BranchResponse {
    /// Whether to start from an empty branch when there is none.
    #[serde(rename = "default-empty")]
    pub(crate) default_empty: bool,
    /// The URL of the branch.
    pub(crate) url: Option<String>,
    /// The folder of the codebase within the branch.
    pub(crate) subpath: Option<String>,
    /// The version control system of the branch.
    pub(crate) vcs_type: Option<String>,
    /// The URL of a copy of the branch that is closer to the worker.
    pub(crate) cached_url: Option<String>,
    /// The branches beside the packaging branch of a Debian package; null when they were not asked
    /// for.
    pub(crate) additional_colocated_branches: Option<ColocatedResponse>,
}

/// The branches beside the packaging branch of a Debian package.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ColocatedResponse {
    /// Their names, for workers that send `node`.
    Names(Vec<String>),
    /// Their roles by name, for others.
    Roles(BTreeMap<String, String>),
}

impl ColocatedResponse {
    fn new(branches: ColocatedBranches, newer: bool) -> Self {
        if newer {
            return Self::Names(branches.into_iter().map(|(name, _)| name).collect());
        }
        let role = |(name, role): (String, ColocatedRole)| (name, role.as_str().to_owned());
        Self::Roles(branches.into_iter().map(role).collect())
    }
}

/// The earlier run to resume from.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ResumeResponse {
    /// The id of the earlier run.
    pub(crate) run_id: String,
    /// What its codemod reported.
    #[schema(value_type = Object)]
    pub(crate) result: Option<Value>,
    /// The URL of the branch that it made.
    pub(crate) branch_url: String,
    /// Its branches: `[role, name, base revision, revision]`.
    #[schema(value_type = Vec<Vec<Option<String>>>)]
    pub(crate) branches: Vec<ResultBranch>,
}

impl From<Resume> for ResumeResponse {
    fn from(resume: Resume) -> Self {
        Self {
            run_id: resume.run_id.to_string(),
            result: resume.result,
            branch_url: resume.branch_url,
            branches: resume.branches,
        }
    }
}

/// What to build after the codemod.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct BuildResponse {
    /// The kind of build: `generic` or `debian`.
    pub(crate) target: String,
    /// The environment variables of the build.
    pub(crate) environment: BTreeMap<String, String>,
    /// The settings of the build, which depend on its kind.
    #[schema(value_type = Object)]
    pub(crate) config: Map<String, Value>,
}

/// The codemod to run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct CodemodResponse {
    /// The command line.
    pub(crate) command: String,
    /// The environment variables of the command.
    pub(crate) environment: BTreeMap<String, String>,
}

/// The repository to which the worker pushes its result.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct TargetRepositoryResponse {
    /// The URL of the repository.
    pub(crate) url: Option<String>,
    /// The version control system of the repository.
    pub(crate) vcs_type: Option<String>,
}

/// The assignment of one queue item to a worker.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AssignmentResponse {
    /// The id of the active run, which becomes the id of the finished run.
    pub id: String,
    /// The campaign and codebase, for people to read.
    pub(crate) description: String,
    /// The id of the queue item.
    pub(crate) queue_id: i64,
    /// The branch to change.
    pub(crate) branch: BranchResponse,
    /// The earlier run to resume from; null to start from the branch itself.
    pub(crate) resume: Option<ResumeResponse>,
    /// What to build after the codemod.
    pub(crate) build: BuildResponse,
    /// The command line of the codemod.
    pub(crate) command: String,
    /// The name of the codebase.
    pub(crate) codebase: String,
    /// The codemod to run.
    pub(crate) codemod: CodemodResponse,
    /// The environment variables of codemod and build.
    pub(crate) env: BTreeMap<String, String>,
    /// The name of the campaign.
    pub(crate) campaign: String,
    /// Whether to build even if the codemod changed nothing.
    #[serde(rename = "force-build")]
    pub(crate) force_build: bool,
    /// Whether to skip the check that the unchanged codebase builds.
    #[serde(rename = "skip-setup-validation")]
    pub(crate) skip_setup_validation: bool,
    /// The repository to which the worker pushes its result.
    pub(crate) target_repository: TargetRepositoryResponse,
    /// The end of the worker's lease; absent unless it requested one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lease_until: Option<String>,
}

impl AssignmentResponse {
    /// Creates the response for a worker.
    ///
    /// Workers of the newer generation read neither a null VCS type nor a null subpath; older ones
    /// expect these.
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
                additional_colocated_branches: assignment
                    .colocated
                    .map(|branches| ColocatedResponse::new(branches, newer)),
            },
            resume: assignment.resume.map(ResumeResponse::from),
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
