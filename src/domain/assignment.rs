//! Assignments: what a worker receives for one queue item.

use super::{
    active_run::ActiveRun,
    branch_query::ColocatedRole,
    build::Build,
    campaign::{BuildTarget, Campaign},
    codebase::Codebase,
    command::split_environment,
    committer,
    resume::Resume,
    termination::INVALID_COMMAND,
    vcs::{VcsStore, VcsType},
};
use std::collections::BTreeMap;

/// An assignment: the active run and everything that its worker must know.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    /// The active run.
    pub run: ActiveRun,
    /// See [`Campaign::default_empty`].
    pub default_empty: bool,
    /// See [`Campaign::force_build`].
    pub force_build: bool,
    /// See [`Campaign::skip_setup_validation`].
    pub skip_setup_validation: bool,
    /// The branch URL of the codebase.
    pub branch_url: Option<String>,
    /// The folder in the branch.
    pub subpath: Option<String>,
    /// The version control system of the codebase.
    pub vcs_type: Option<VcsType>,
    /// The URL of the codebase's main branch in the VCS store.
    pub cached_url: Option<String>,
    /// The URL of the codebase's repository in the VCS store.
    pub target_repository_url: Option<String>,
    /// The branches beside the packaging branch; `None` when they were not asked for.
    pub colocated: Option<ColocatedBranches>,
    /// The earlier branch to resume from.
    pub resume: Option<Resume>,
    /// The build configuration.
    pub build: Build,
    /// The command, without its leading environment.
    pub command: String,
    /// The environment of the command.
    pub env: BTreeMap<String, String>,
}

/// The branches beside the packaging branch of a Debian package, by name.
pub type ColocatedBranches = Vec<(String, ColocatedRole)>;

/// Why an item cannot be assigned; its run ends with this code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unassignable {
    /// The result code.
    pub code: &'static str,
    /// The reason, in words.
    pub description: String,
}

/// The parts that an assignment is built from.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The active run.
    pub run: ActiveRun,
    /// Its campaign.
    pub campaign: &'a Campaign,
    /// Its codebase.
    pub codebase: &'a Codebase,
    /// The build configuration.
    pub build: Build,
    /// The branches beside the packaging branch, if they were asked for.
    pub colocated: Option<ColocatedBranches>,
    /// The earlier branch to resume from.
    pub resume: Option<Resume>,
    /// The configured committer, `Name <email>`.
    pub committer: Option<&'a str>,
    /// The VCS store.
    pub vcs_store: &'a VcsStore,
}

/// Returns the branch of the VCS store that mirrors a codebase's own:
/// `VENDOR/latest` for Debian builds, in lower case, `main` otherwise.
fn cached_branch(campaign: &Campaign, build: &Build) -> String {
    match campaign.build {
        Some(BuildTarget::Debian(_)) => format!(
            "{}/latest",
            build
                .environment
                .get("DEB_VENDOR")
                .map_or_else(|| "debian".to_owned(), |vendor| vendor.to_lowercase())
        ),
        _ => "main".to_owned(),
    }
}

/// Builds an assignment.
///
/// # Errors
///
/// [`Unassignable`] when the item's command cannot be split.
pub fn assign(parts: Parts<'_>) -> Result<Assignment, Unassignable> {
    let Parts {
        run,
        campaign,
        codebase,
        build,
        colocated,
        resume,
        committer,
        vcs_store,
    } = parts;
    let (command_environment, command) =
        split_environment(&run.item.command).map_err(|e| Unassignable {
            code: INVALID_COMMAND,
            description: e.to_string(),
        })?;
    let vcs_type = run.vcs.vcs_type.or(codebase.vcs_type);
    let name = &run.item.key.codebase;
    let cached_url = vcs_store.branch(vcs_type, name, &cached_branch(campaign, &build));
    let target_repository_url = vcs_store.repository(vcs_type, name);
    let mut env = build.environment.clone();
    env.extend(committer::environment(committer));
    env.extend(command_environment);
    Ok(Assignment {
        default_empty: campaign.default_empty,
        force_build: campaign.force_build,
        skip_setup_validation: campaign.skip_setup_validation,
        branch_url: run
            .vcs
            .branch_url
            .clone()
            .or_else(|| codebase.branch_url.clone()),
        subpath: codebase.subpath.clone(),
        vcs_type,
        cached_url,
        target_repository_url,
        colocated,
        resume,
        build,
        command,
        env,
        run,
    })
}
