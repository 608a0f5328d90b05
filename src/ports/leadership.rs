//! Leader election: which of several runners does what only one may do at a time.

use super::Fault;
use async_trait::async_trait;
use std::time::Duration;

/// Roles, each of which is leased to one process at a time.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait LeaderElection: Send + Sync {
    /// Acquires a role, or renews it, for `ttl` from now on. Returns false when another holder has
    /// it.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails; the role may have been acquired all the same.
    async fn acquire(&self, role: &str, holder: &str, ttl: Duration) -> Result<bool, Fault>;

    /// Resigns from a role before its lease expires. Does nothing when another holder has it.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails; the role then expires by itself.
    async fn resign(&self, role: &str, holder: &str) -> Result<(), Fault>;
}
