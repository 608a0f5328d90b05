//! What a worker is handed for one queue item.

use super::{
    active_run::ActiveRun,
    build::Build,
    campaign::{BuildTarget, Campaign},
    codebase::Codebase,
    command::split_environment,
    committer,
    resume::Resume,
    vcs::{VcsStore, VcsType},
};
use std::collections::BTreeMap;

/// What a worker is handed.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct Assignment {
    pub run: ActiveRun,
    pub default_empty: bool,
    pub force_build: bool,
    pub skip_setup_validation: bool,
    pub branch_url: Option<String>,
    pub subpath: Option<String>,
    pub vcs_type: Option<VcsType>,
    /// The codebase's main branch in the VCS store.
    pub cached_url: Option<String>,
    /// The codebase's repository in the VCS store.
    pub target_repository_url: Option<String>,
    pub resume: Option<Resume>,
    pub build: Build,
    /// Without its leading environment.
    pub command: String,
    pub env: BTreeMap<String, String>,
}

/// Why an item cannot be handed out; the run ends with this code.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct Unassignable {
    pub code: &'static str,
    pub description: String,
}

/// The parts that an assignment is made of.
#[derive(Debug)]
#[expect(missing_docs)]
pub struct Parts<'a> {
    pub run: ActiveRun,
    pub campaign: &'a Campaign,
    pub codebase: &'a Codebase,
    pub build: Build,
    pub resume: Option<Resume>,
    pub committer: Option<&'a str>,
    pub vcs_store: &'a VcsStore,
}

/// The branch of the VCS store that mirrors a codebase's own: `VENDOR/latest` for Debian builds, `main` otherwise.
fn cached_branch(campaign: &Campaign, build: &Build) -> String {
    match campaign.build {
        Some(BuildTarget::Debian(_)) => format!(
            "{}/latest",
            build
                .environment
                .get("DEB_VENDOR")
                .map_or("debian", String::as_str)
        ),
        _ => "main".to_owned(),
    }
}

/// Puts an assignment together.
pub fn assign(parts: Parts<'_>) -> Result<Assignment, Unassignable> {
    let Parts {
        run,
        campaign,
        codebase,
        build,
        resume,
        committer,
        vcs_store,
    } = parts;
    let (command_environment, command) =
        split_environment(&run.item.command).map_err(|e| Unassignable {
            code: "invalid-command",
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
        resume,
        build,
        command,
        env,
        run,
    })
}
