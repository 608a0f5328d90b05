//! Hosts that are not contacted for a while, because they limit the rate of requests.

use super::Fault;
use crate::domain::time::Time;
use async_trait::async_trait;

/// A host that is backing off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostBackoff {
    /// The host, as it is written in the branch URLs of its codebases.
    pub host: String,
    /// The end of the backoff.
    pub until: Time,
}

/// The hosts that are backing off, for all runner processes.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait HostBackoffs: Send + Sync {
    /// Excludes the codebases of a host from claims until then. A later end that is stored already
    /// stays, so that repeating it is harmless.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store cannot be reached.
    async fn back_off_host(&self, backoff: HostBackoff) -> Result<(), Fault>;

    /// Ends the backoff of a host; returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store cannot be reached.
    async fn end_backoff(&self, host: &str) -> Result<bool, Fault>;

    /// Returns the hosts that are backing off at that time, by name.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store cannot be reached.
    async fn backed_off_hosts(&self, now: Time) -> Result<Vec<HostBackoff>, Fault>;
}
