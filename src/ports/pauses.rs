//! What somebody has paused, and how much may run at the same time. `QueueStore::claim` heeds both.

use super::Fault;
use crate::domain::{
    pause::{ConcurrencyLimit, Pause, Scope},
    time::Time,
};
use async_trait::async_trait;

/// Pauses and limits, one of each for a scope.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait PauseStore: Send + Sync {
    /// Pauses something, in place of an earlier pause of the same.
    async fn pause(&self, pause: Pause) -> Result<(), Fault>;

    /// Ends a pause; false when there is none.
    async fn unpause(&self, scope: &Scope) -> Result<bool, Fault>;

    /// What is paused at that time, by kind and name.
    async fn pauses(&self, now: Time) -> Result<Vec<Pause>, Fault>;

    /// Limits something, in place of an earlier limit of the same. What runs already goes on.
    async fn set_limit(&self, limit: ConcurrencyLimit) -> Result<(), Fault>;

    /// Takes a limit away; false when there is none.
    async fn remove_limit(&self, scope: &Scope) -> Result<bool, Fault>;

    /// All limits, by kind and name.
    async fn limits(&self) -> Result<Vec<ConcurrencyLimit>, Fault>;
}
