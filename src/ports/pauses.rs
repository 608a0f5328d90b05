//! Pauses and concurrency limits. [`ActiveRunStore::claim`](super::ActiveRunStore::claim) respects
//! both.

use super::Fault;
use crate::domain::{
    pause::{ConcurrencyLimit, Pause, Scope},
    time::Time,
};
use async_trait::async_trait;

/// Pauses and limits; a scope has at most one of each.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait PauseStore: Send + Sync {
    /// Pauses a scope. An earlier pause of the same scope is replaced.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn pause(&self, pause: Pause) -> Result<(), Fault>;

    /// Ends the pause of a scope. Returns false when there is none.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn unpause(&self, scope: &Scope) -> Result<bool, Fault>;

    /// Returns the pauses in force at that time, by kind and name.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn pauses(&self, now: Time) -> Result<Vec<Pause>, Fault>;

    /// Sets the limit of a scope. An earlier limit of the same scope is replaced. Runs that are
    /// active already are not stopped.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn set_limit(&self, limit: ConcurrencyLimit) -> Result<(), Fault>;

    /// Removes the limit of a scope. Returns false when there is none.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn remove_limit(&self, scope: &Scope) -> Result<bool, Fault>;

    /// Returns all limits, by kind and name.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn limits(&self) -> Result<Vec<ConcurrencyLimit>, Fault>;
}
