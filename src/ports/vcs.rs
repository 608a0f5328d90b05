//! Queries about branches in version control, without cloning them.

use crate::domain::branch_query::{BranchQuery, FoundBranches};
use async_trait::async_trait;
use chrono::TimeDelta;

/// The outcome of probing a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// There is a repository.
    Found(FoundBranches),
    /// Nothing is known about it. Carries the reason.
    Unknown(String),
    /// Nothing came back in time, or not all of it.
    TimedOut,
    /// The host limits the rate of requests.
    RateLimited {
        /// How long the host asks to be left alone, if it says so.
        retry_after: Option<TimeDelta>,
    },
}

/// Queries branches. Whatever fails is part of what is returned.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Vcs: Send + Sync {
    /// Probes the branches of a repository. The time and size of each response are bounded.
    async fn probe(&self, query: &BranchQuery) -> Probe;
}
