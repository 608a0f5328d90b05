//! Finds the earlier branch that a run continues from.

use super::{
    CoordinatorConfig, ServiceError,
    prober::{Probed, Prober},
};
use crate::{
    domain::{
        branch_query::BranchQuery,
        branch_url::{join_branch_url, split_branch_url},
        campaign::Campaign,
        codebase::Codebase,
        forge::{Forge, proposal_branches, proposal_query},
        host::host_of,
        name::CodebaseName,
        resume::Resume,
        run::Run,
        schedule::Pair,
        vcs::VcsType,
    },
    ports::{Clock, HostBackoffs, RunStore, host_backoff::HostBackoff},
};
use std::{sync::Arc, time::Duration};

/// A search at one place that takes longer is skipped.
const MAX_SEARCH: Duration = Duration::from_secs(5);

/// The outcome of looking for a branch to resume from.
#[derive(Debug, Clone, PartialEq)]
pub enum Resumable {
    /// There is one.
    From(Box<Resume>),
    /// There is none. Carries the reason.
    Nothing(String),
    /// A host limits the rate of requests.
    RateLimited(HostBackoff),
}

/// A branch that an earlier run left.
struct EarlierBranch {
    url: String,
    revision: String,
}

/// What a place says about earlier branches.
enum Looked {
    Found(EarlierBranch),
    Nothing(String),
    RateLimited(HostBackoff),
}

/// Looks for branches to resume from.
pub struct Resumption {
    prober: Arc<Prober>,
    runs: Arc<dyn RunStore>,
    host_backoffs: Arc<dyn HostBackoffs>,
    clock: Arc<dyn Clock>,
    config: Arc<CoordinatorConfig>,
}

impl Resumption {
    /// Creates the use case over these ports.
    pub fn new(
        prober: Arc<Prober>,
        runs: Arc<dyn RunStore>,
        host_backoffs: Arc<dyn HostBackoffs>,
        clock: Arc<dyn Clock>,
        config: Arc<CoordinatorConfig>,
    ) -> Self {
        Self {
            prober,
            runs,
            host_backoffs,
            clock,
            config,
        }
    }

    /// Looks for the branch of an earlier run of a campaign: on the forge of the codebase, else in
    /// the VCS store.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Fault`] when the store of runs fails. A place that cannot be asked is no
    /// error.
    #[tracing::instrument(
        name = "services.resumption.find", level = "debug", skip_all,
        fields(campaign = %campaign.name, codebase = codebase.name.as_ref().map(CodebaseName::as_str))
    )]
    pub async fn find(
        &self,
        codebase: &Codebase,
        vcs_type: Option<VcsType>,
        campaign: &Campaign,
    ) -> Result<Resumable, ServiceError> {
        let Some(name) = codebase.name.clone() else {
            return Ok(Resumable::Nothing("the codebase has no name".to_owned()));
        };
        let branch = match self.look(codebase, vcs_type, &name, campaign).await? {
            Looked::Found(branch) => branch,
            Looked::Nothing(why) => return Ok(Resumable::Nothing(why)),
            Looked::RateLimited(limit) => return Ok(Resumable::RateLimited(limit)),
        };
        let pair = Pair {
            codebase: name,
            campaign: campaign.name.clone(),
        };
        let run = self.runs.run_of_revision(&pair, &branch.revision).await?;
        Ok(resumable(run, branch))
    }

    /// Looks on the forge, and in the VCS store if there is nothing.
    ///
    /// Only a limit of the codebase's own host keeps its items back. Those of all codebases would wait
    /// for the VCS store otherwise, which is no better than one that is down.
    async fn look(
        &self,
        codebase: &Codebase,
        vcs_type: Option<VcsType>,
        name: &CodebaseName,
        campaign: &Campaign,
    ) -> Result<Looked, ServiceError> {
        let forge = self.on_forge(codebase, vcs_type, name, campaign);
        let store = self.in_store(vcs_type, name, campaign);
        // Claims leave out the items on hosts that back off, but these may be other hosts.
        let backed_off = match forge.is_some() || store.is_some() {
            true => {
                self.host_backoffs
                    .backed_off_hosts(self.clock.now())
                    .await?
            }
            false => vec![],
        };
        let own_host = codebase.branch_url.as_deref().and_then(host_of);
        let mut why = "there is neither a forge for its host nor a VCS store".to_owned();
        for (query, branches) in [forge, store].into_iter().flatten() {
            let host = host_of(&query.repository);
            let known = backed_off
                .iter()
                .find(|limit| Some(&limit.host) == host.as_ref());
            let looked = match known {
                Some(limit) => Looked::RateLimited(limit.clone()),
                None => self.ask(&query, &branches).await,
            };
            match looked {
                Looked::Nothing(reason) => why = reason,
                Looked::RateLimited(limit) if host != own_host => {
                    why = format!("{} limits the rate of requests", limit.host);
                    if known.is_none() {
                        self.host_backoffs.back_off_host(limit).await?;
                    }
                }
                looked => return Ok(looked),
            }
        }
        Ok(Looked::Nothing(why))
    }

    /// Asks for the branch of the campaign in the repository that our account derived.
    fn on_forge(
        &self,
        codebase: &Codebase,
        vcs_type: Option<VcsType>,
        name: &CodebaseName,
        campaign: &Campaign,
    ) -> Option<(BranchQuery, Vec<String>)> {
        // Forges have repositories of git; others have no account that derives them.
        if !matches!(vcs_type, None | Some(VcsType::Git)) {
            return None;
        }
        let repository = codebase
            .branch_url
            .as_deref()
            .and_then(|url| split_branch_url(url).ok())
            .map(|(repository, _)| repository);
        let derive = |forge: &Forge| forge.derived(repository.as_deref()?);
        let derived = self.config.forges.iter().find_map(derive)?;
        let branches = proposal_branches(campaign, name);
        Some((proposal_query(derived, branches.clone()), branches))
    }

    /// Asks for the branch of the campaign in the VCS store.
    fn in_store(
        &self,
        vcs_type: Option<VcsType>,
        codebase: &CodebaseName,
        campaign: &Campaign,
    ) -> Option<(BranchQuery, Vec<String>)> {
        let vcs_type = vcs_type.unwrap_or(VcsType::Git);
        let store = &self.config.vcs_store;
        let branch = format!("{}/main", campaign.name);
        let repository = match vcs_type {
            VcsType::Git => store.repository(Some(vcs_type), codebase),
            _ => store.branch(Some(vcs_type), codebase, &branch),
        };
        let query = BranchQuery {
            vcs_type: Some(vcs_type),
            ..proposal_query(repository?, vec![branch.clone()])
        };
        Some((query, vec![branch]))
    }

    /// Asks a repository for the first of these branches, or for the branch that it is.
    async fn ask(&self, query: &BranchQuery, branches: &[String]) -> Looked {
        match query.vcs_type {
            None | Some(VcsType::Git) => self.first_of(query, branches).await,
            Some(_) => self.whole_repository(query).await,
        }
    }

    /// Asks a git repository for the first of these branches.
    async fn first_of(&self, query: &BranchQuery, branches: &[String]) -> Looked {
        let found = match self.prober.probe_anew(query, MAX_SEARCH).await {
            Probed::Found(found) => found,
            Probed::Unknown(why) => return Looked::Nothing(why),
            Probed::RateLimited(limit) => return Looked::RateLimited(limit),
        };
        let first = branches
            .iter()
            .find_map(|name| Some((name, found.others.get(name)?)));
        match first {
            Some((name, revision)) => Looked::Found(EarlierBranch {
                url: join_branch_url(&found.repository, Some(name)),
                revision: revision.clone(),
            }),
            None => Looked::Nothing("the campaign has no branch there".to_owned()),
        }
    }

    /// Asks for a branch that is a repository of its own.
    async fn whole_repository(&self, query: &BranchQuery) -> Looked {
        match self.prober.probe_anew(query, MAX_SEARCH).await {
            Probed::Found(found) => match found.revision {
                Some(revision) => Looked::Found(EarlierBranch {
                    url: found.repository,
                    revision,
                }),
                None => Looked::Nothing("the branch is empty".to_owned()),
            },
            Probed::Unknown(why) => Looked::Nothing(why),
            Probed::RateLimited(limit) => Looked::RateLimited(limit),
        }
    }
}

/// Returns what a run can continue from whose tip is that of a branch.
fn resumable(run: Option<Run>, branch: EarlierBranch) -> Resumable {
    let Some(run) = run else {
        let revision = branch.revision;
        return Resumable::Nothing(format!("no successful run made its tip, {revision}"));
    };
    let id = run.id.clone();
    match Resume::from_run(run, branch.url) {
        Some(resume) => Resumable::From(Box::new(resume)),
        None => Resumable::Nothing(format!("the run {id} was rejected")),
    }
}
