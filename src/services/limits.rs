//! Concurrency limits, set and removed without a restart.

use super::{ServiceError, prober::Prober};
use crate::{
    domain::{
        host::normalize,
        pause::{ConcurrencyLimit, Scope},
    },
    ports::{ActiveRunStore, HostBackoffs, PauseStore},
};
use std::sync::Arc;

/// A concurrency limit and how much of it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The limit.
    pub limit: ConcurrencyLimit,
    /// The number of active runs that count towards it.
    pub running: usize,
}

/// Sets, lists and removes concurrency limits.
pub struct Limits {
    store: Arc<dyn PauseStore>,
    active_runs: Arc<dyn ActiveRunStore>,
    host_backoffs: Arc<dyn HostBackoffs>,
    prober: Arc<Prober>,
}

impl Limits {
    /// Creates the use case over these ports.
    pub fn new(
        store: Arc<dyn PauseStore>,
        active_runs: Arc<dyn ActiveRunStore>,
        host_backoffs: Arc<dyn HostBackoffs>,
        prober: Arc<Prober>,
    ) -> Self {
        Self {
            store,
            active_runs,
            host_backoffs,
            prober,
        }
    }

    /// Ends the backoff of a host that limited the rate of requests, so that its items can be
    /// assigned again, and the pause of one that is slow for this process.
    ///
    /// # Errors
    ///
    /// `NotFound` when it has neither.
    #[tracing::instrument(name = "services.limits.end_backoff", skip_all, fields(host))]
    pub async fn end_backoff(&self, host: &str) -> Result<(), ServiceError> {
        let host = normalize(host);
        let was_backed_off = self.host_backoffs.end_backoff(&host).await?;
        let was_slow = self.prober.forgive(&host);
        match was_backed_off || was_slow {
            true => Ok(()),
            false => Err(ServiceError::not_found("backoff of the host", host)),
        }
    }

    /// Sets the limit of a campaign or a host, in place of an earlier one.
    ///
    /// # Errors
    ///
    /// `Invalid` for any other scope.
    #[tracing::instrument(
        name = "services.limits.set",
        skip_all,
        fields(scope.kind = limit.scope.kind(), scope.name = limit.scope.name())
    )]
    pub async fn set(&self, limit: ConcurrencyLimit) -> Result<ConcurrencyLimit, ServiceError> {
        let limit = limit.validate()?;
        self.store.set_limit(limit.clone()).await?;
        Ok(limit)
    }

    /// Removes the limit of a campaign or a host.
    ///
    /// # Errors
    ///
    /// `NotFound` when it has none.
    #[tracing::instrument(
        name = "services.limits.remove",
        skip_all,
        fields(scope.kind = scope.kind(), scope.name = scope.name())
    )]
    pub async fn remove(&self, scope: &Scope) -> Result<(), ServiceError> {
        match self.store.remove_limit(scope).await? {
            true => Ok(()),
            false => Err(ServiceError::not_found(
                "limit",
                format!("{} {}", scope.kind(), scope.name()),
            )),
        }
    }

    /// Returns all limits, with how much of each is used.
    ///
    /// # Errors
    ///
    /// When a store fails.
    #[tracing::instrument(name = "services.limits.list", skip_all)]
    pub async fn list(&self) -> Result<Vec<Usage>, ServiceError> {
        let limits = self.store.limits().await?;
        let active = self.active_runs.list().await?;
        Ok(limits
            .into_iter()
            .map(|limit| Usage {
                running: limit.used(&active),
                limit,
            })
            .collect())
    }
}
