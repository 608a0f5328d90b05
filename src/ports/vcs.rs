//! Queries about branches in version control, without cloning them.

use crate::domain::{codebase::Codebase, name::CampaignName, time::Time, vcs::VcsType};
use async_trait::async_trait;

/// The outcome of probing the branch of a codebase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// The branch exists.
    Found {
        /// The branch URL, after redirects.
        url: String,
        /// The version control system.
        vcs_type: VcsType,
    },
    /// Nothing is known about the branch. Carries the reason.
    Unknown(String),
    /// The host limits the rate of requests until then.
    RateLimited(Time),
}

/// A branch that an earlier run left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EarlierBranch {
    /// The branch URL.
    pub url: String,
    /// The revision at its tip.
    pub revision: String,
}

/// Queries branches. Implementations bound the time of a query themselves; a failure is part of
/// what is returned.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Vcs: Send + Sync {
    /// Probes the branch of a codebase, for at most 10 s.
    async fn probe(&self, codebase: &Codebase) -> Probe;

    /// Returns the branch of an earlier run of this campaign: that of an open merge proposal,
    /// otherwise the one in the VCS store.
    async fn earlier_branch(
        &self,
        codebase: &Codebase,
        campaign: &CampaignName,
    ) -> Option<EarlierBranch>;
}
