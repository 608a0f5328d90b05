//! Which of several runners does what only one may do at a time.

use super::Fault;
use async_trait::async_trait;
use std::time::Duration;

/// Roles that one process holds for a while.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait LeaderElection: Send + Sync {
    /// Takes a role, or keeps it, for so long from now. False when another holder has it.
    async fn acquire(&self, role: &str, holder: &str, time: Duration) -> Result<bool, Fault>;

    /// Lets a role go before its time; another holder's stays.
    async fn resign(&self, role: &str, holder: &str) -> Result<(), Fault>;
}
