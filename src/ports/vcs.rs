//! Looks at branches without cloning them.

use crate::domain::{codebase::Codebase, name::CampaignName, time::Time, vcs::VcsType};
use async_trait::async_trait;

/// What a look at a codebase's branch told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It is there.
    #[expect(missing_docs)]
    Availability { url: String, vcs_type: VcsType },
    /// Nothing is known; why.
    Unknown(String),
    /// The host wants to be left alone until then.
    RateLimited(Time),
}

/// A branch that an earlier run left.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct EarlierBranch {
    pub url: String,
    /// The revision at its tip.
    pub revision: String,
}

/// Looks at branches. Implementations bound their own time; every failure is part of the answer.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Vcs: Send + Sync {
    /// Looks at the branch of a codebase, at most 10 s.
    async fn probe(&self, codebase: &Codebase) -> Probe;

    /// The branch of an earlier run of this campaign: an open proposal's, else the one in the VCS store.
    async fn earlier_branch(
        &self,
        codebase: &Codebase,
        campaign: &CampaignName,
    ) -> Option<EarlierBranch>;
}
