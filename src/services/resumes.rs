//! What runs resumed from, for people who want to know.

use super::{
    CoordinatorConfig, ServiceError,
    resumption::{Resumable, Resumption},
};
use crate::{
    domain::{
        Invalid,
        name::{CampaignName, CodebaseName, RunId},
        resume_check::{self, ResumeProblem, Resumed},
        run::Run,
        schedule::Pair,
    },
    ports::{
        Catalog, HostBackoffs, RunHistory, RunStore,
        run_history::{RunLink, RunLinks},
    },
};
use std::{collections::HashSet, sync::Arc};

/// How long a chain is followed.
const MAX_CHAIN: usize = 1000;
/// How many runs one page of a chain or of descendants has.
const MAX_RUNS: usize = 100;
/// How many runs one page of a validation looks at.
const MAX_PAGE: usize = 1000;

/// Which branch a check is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckSubject {
    /// That of a known codebase.
    Codebase(CodebaseName),
    /// That at a URL, of a codebase that is not known.
    BranchUrl(String),
}

/// A page of runs. Large runs make a page short.
#[derive(Debug, Clone, PartialEq)]
pub struct RunPage {
    /// The runs.
    pub runs: Vec<Run>,
    /// The last of them, if another page comes after it.
    pub next: Option<RunId>,
}

/// A page of a validation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Validation {
    /// How many runs that resumed from others were looked at.
    pub checked: usize,
    /// What is wrong with which of them.
    pub errors: Vec<(RunId, ResumeProblem)>,
    /// Where the next page begins; `None` after the last.
    pub next: Option<RunId>,
}

/// Looks up what runs resumed from.
pub struct Resumes {
    /// The finished runs.
    pub runs: Arc<dyn RunStore>,
    /// The finished runs by what they resumed from.
    pub history: Arc<dyn RunHistory>,
    /// The codebases.
    pub catalog: Arc<dyn Catalog>,
    /// Looks for branches to resume from.
    pub resumption: Arc<Resumption>,
    /// The hosts that limit the rate of requests.
    pub host_backoffs: Arc<dyn HostBackoffs>,
    /// The campaigns.
    pub config: Arc<CoordinatorConfig>,
}

fn unknown_cursor(cursor: &RunId) -> ServiceError {
    Invalid::new("cursor", format!("there is no run {cursor}")).into()
}

fn pair_of(link: &RunLink) -> Pair {
    Pair {
        codebase: link.codebase.clone(),
        campaign: link.campaign.clone(),
    }
}

impl Resumes {
    /// Looks for a branch to resume from, as an assignment would.
    ///
    /// # Errors
    ///
    /// `Invalid` when the campaign is not configured, `NotFound` when there is no such codebase.
    #[tracing::instrument(
        name = "services.resumes.check", skip_all, fields(campaign.name = %campaign)
    )]
    pub async fn check(
        &self,
        campaign: &CampaignName,
        subject: CheckSubject,
    ) -> Result<Resumable, ServiceError> {
        let configured = self.config.campaigns.campaign(campaign);
        let configured = configured.ok_or_else(|| {
            Invalid::new(
                "campaign",
                format!("the campaign {campaign} is not configured"),
            )
        })?;
        let name = match subject {
            CheckSubject::Codebase(name) => name,
            CheckSubject::BranchUrl(url) => {
                let name = self.history.codebase_at(&url).await?;
                name.ok_or_else(|| ServiceError::not_found("codebase with the branch", url))?
            }
        };
        let codebase = self.catalog.codebase(&name).await?;
        let codebase = codebase.ok_or_else(|| ServiceError::not_found("codebase", &name))?;
        let vcs_type = codebase.vcs_type;
        let found = self
            .resumption
            .find(&codebase, vcs_type, configured)
            .await?;
        if let Resumable::RateLimited(limit) = &found {
            self.host_backoffs.back_off_host(limit.clone()).await?;
        }
        Ok(found)
    }

    async fn run(&self, id: &RunId) -> Result<Run, ServiceError> {
        let run = self.runs.run(id).await?;
        run.ok_or_else(|| ServiceError::not_found("run", id))
    }

    /// Returns a page of these runs, and whether one comes after it.
    async fn page(&self, mut ids: Vec<RunId>) -> Result<RunPage, ServiceError> {
        let is_long = ids.len() > MAX_RUNS;
        ids.truncate(MAX_RUNS);
        let runs = self.runs.runs_by_id(&ids).await?;
        let last = runs.last().map(|run| run.id.clone());
        let is_all = !is_long && last.as_ref() == ids.last();
        Ok(RunPage {
            runs,
            next: last.filter(|_| !is_all),
        })
    }

    /// Follows what runs resumed from, beginning with the run `next`, until one is missing or comes
    /// again. A validation says so of those.
    async fn follow(&self, mut next: Option<RunId>) -> Result<Vec<RunLink>, ServiceError> {
        let (mut chain, mut seen) = (vec![], HashSet::new());
        while let Some(id) = next.take()
            && chain.len() < MAX_CHAIN
            && seen.insert(id.clone())
            && let Some(link) = self.history.link(&id).await?
        {
            next.clone_from(&link.resume_from);
            chain.push(link);
        }
        Ok(chain)
    }

    /// Returns the runs that a run resumed from, the nearest first, after the run `cursor`, if there
    /// is one.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such run.
    #[tracing::instrument(name = "services.resumes.chain", skip_all, fields(run.id = %id))]
    pub async fn chain(&self, id: &RunId, cursor: Option<RunId>) -> Result<RunPage, ServiceError> {
        let run = self.run(id).await?;
        let chain = self.follow(run.resume_from).await?.into_iter();
        let mut ids: Vec<RunId> = chain.map(|link| link.id).collect();
        // In a circle the run itself comes again.
        ids.retain(|other| other != id);
        if let Some(cursor) = cursor {
            let place = ids.iter().position(|id| *id == cursor);
            ids.drain(..=place.ok_or_else(|| unknown_cursor(&cursor))?);
        }
        ids.truncate(MAX_RUNS + 1);
        self.page(ids).await
    }

    /// Returns the runs that resumed from a run, the oldest first, after the run `cursor`, if there is
    /// one.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such run.
    #[tracing::instrument(name = "services.resumes.descendants", skip_all, fields(run.id = %id))]
    pub async fn descendants(
        &self,
        id: &RunId,
        cursor: Option<RunId>,
    ) -> Result<RunPage, ServiceError> {
        let run = self.run(id).await?;
        let pair = Pair {
            codebase: run.codebase,
            campaign: run.campaign,
        };
        let after = match cursor {
            Some(cursor) => {
                let link = self.history.link(&cursor).await?;
                Some(link.ok_or_else(|| unknown_cursor(&cursor))?)
            }
            None => None,
        };
        let ids = self
            .history
            .resumed_from(&pair, id, after, MAX_RUNS + 1)
            .await?;
        self.page(ids).await
    }

    /// Checks a page of runs, in the order of their ids, after `cursor`.
    ///
    /// # Errors
    ///
    /// When the store fails.
    #[tracing::instrument(name = "services.resumes.validate", skip_all)]
    pub async fn validate(
        &self,
        campaign: Option<&CampaignName>,
        limit: usize,
        cursor: &RunId,
    ) -> Result<Validation, ServiceError> {
        let limit = limit.clamp(1, MAX_PAGE);
        let RunLinks { links: page, next } = self.history.links_after(cursor, limit).await?;
        let mut validation = Validation {
            checked: 0,
            errors: vec![],
            next,
        };
        let wanted = |link: &&RunLink| campaign.is_none_or(|campaign| link.campaign == *campaign);
        for link in page.iter().filter(wanted) {
            if let Some(from) = &link.resume_from {
                validation.checked += 1;
                let problems = self.problems_of(link, from).await?;
                let of_run = problems
                    .into_iter()
                    .map(|problem| (link.id.clone(), problem));
                validation.errors.extend(of_run);
            }
        }
        Ok(validation)
    }

    async fn problems_of(
        &self,
        link: &RunLink,
        from: &RunId,
    ) -> Result<Vec<ResumeProblem>, ServiceError> {
        let found = self.history.link(from).await?;
        let resumed = found.as_ref().map(|found| Resumed {
            pair: pair_of(found),
            start_time: found.start_time,
            code: found.code.clone(),
        });
        let run = resume_check::Resumption {
            pair: pair_of(link),
            start_time: link.start_time,
            from: from.clone(),
        };
        let mut problems = resume_check::problems(&run, resumed.as_ref());
        if problems.contains(&ResumeProblem::NotEarlier) && self.is_in_cycle(&link.id, from).await?
        {
            problems.push(ResumeProblem::Cycle);
        }
        Ok(problems)
    }

    /// Returns whether a run resumed, by way of `from`, from itself. Others of its chain may be in a
    /// cycle without it: that is said of them.
    async fn is_in_cycle(&self, id: &RunId, from: &RunId) -> Result<bool, ServiceError> {
        let chain = self.follow(Some(from.clone())).await?;
        Ok(chain.iter().any(|link| link.id == *id))
    }
}
