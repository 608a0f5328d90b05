//! What runs resumed from.

use super::Fault;
use crate::domain::{
    name::{CampaignName, CodebaseName, RunId},
    run::ResultCode,
    schedule::Pair,
    time::Time,
};
use async_trait::async_trait;

/// A run, as far as matters for what it resumed from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLink {
    /// The run.
    pub id: RunId,
    /// Its codebase.
    pub codebase: CodebaseName,
    /// Its campaign.
    pub campaign: CampaignName,
    /// Its code.
    pub code: ResultCode,
    /// When it started.
    pub start_time: Time,
    /// The run that it resumed from.
    pub resume_from: Option<RunId>,
}

/// A page of runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLinks {
    /// The runs, in the order of their ids. Those that other services stored without a codebase, a
    /// campaign or a start are left out.
    pub links: Vec<RunLink>,
    /// After which id the next page begins; `None` after the last page.
    pub next: Option<RunId>,
}

/// The finished runs by what they resumed from, and the codebases by their branches.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait RunHistory: Send + Sync {
    /// Returns the runs of a pair that resumed from that run, the oldest first, at most `limit`; those
    /// after the run `after`, if there is one.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn resumed_from(
        &self,
        pair: &Pair,
        id: &RunId,
        after: Option<RunLink>,
        limit: usize,
    ) -> Result<Vec<RunId>, Fault>;

    /// Returns a run; `None` also for one that other services stored without a codebase, a campaign
    /// or a start.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn link(&self, id: &RunId) -> Result<Option<RunLink>, Fault>;

    /// Returns the page of runs that come after an id in the order of ids, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn links_after(&self, id: &RunId, limit: usize) -> Result<RunLinks, Fault>;

    /// Returns the codebase at a branch URL; one of several that differ in their subpaths.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn codebase_at(&self, branch_url: &str) -> Result<Option<CodebaseName>, Fault>;
}
