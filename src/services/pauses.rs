//! Pauses and limits, set without a restart.

use super::ServiceError;
use crate::{
    domain::{
        pause::{ConcurrencyLimit, Pause, Scope},
        time::Time,
    },
    ports::{ActiveRunStore, Clock, PauseStore},
};
use std::sync::Arc;

/// A limit, and how many runs count towards it now.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct Usage {
    pub limit: ConcurrencyLimit,
    pub running: usize,
}

/// Sets and lists them.
pub struct Restraints {
    pauses: Arc<dyn PauseStore>,
    active_runs: Arc<dyn ActiveRunStore>,
    clock: Arc<dyn Clock>,
}

impl Restraints {
    /// Through these ports.
    pub fn new(
        pauses: Arc<dyn PauseStore>,
        active_runs: Arc<dyn ActiveRunStore>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            pauses,
            active_runs,
            clock,
        }
    }

    /// Pauses something until then, or until somebody ends it.
    pub async fn pause(
        &self,
        scope: Scope,
        reason: String,
        until: Option<Time>,
    ) -> Result<Pause, ServiceError> {
        let pause = Pause {
            scope,
            reason,
            since: crate::domain::time::micros(self.clock.now()),
            until,
        }
        .validate()?;
        self.pauses.pause(pause.clone()).await?;
        Ok(pause)
    }

    /// Ends a pause.
    pub async fn resume(&self, scope: &Scope) -> Result<(), ServiceError> {
        match self.pauses.unpause(scope).await? {
            true => Ok(()),
            false => Err(ServiceError::not_found(
                "pause",
                format!("{} {}", scope.kind(), scope.name()).trim_end(),
            )),
        }
    }

    /// What is paused now.
    pub async fn pauses(&self) -> Result<Vec<Pause>, ServiceError> {
        Ok(self.pauses.pauses(self.clock.now()).await?)
    }

    /// Limits a campaign or a host.
    pub async fn limit(&self, limit: ConcurrencyLimit) -> Result<ConcurrencyLimit, ServiceError> {
        let limit = limit.validate()?;
        self.pauses.set_limit(limit.clone()).await?;
        Ok(limit)
    }

    /// Takes a limit away.
    pub async fn unlimit(&self, scope: &Scope) -> Result<(), ServiceError> {
        match self.pauses.remove_limit(scope).await? {
            true => Ok(()),
            false => Err(ServiceError::not_found(
                "limit",
                format!("{} {}", scope.kind(), scope.name()),
            )),
        }
    }

    /// All limits, and what of them is used.
    pub async fn limits(&self) -> Result<Vec<Usage>, ServiceError> {
        let (limits, active) = (self.pauses.limits().await?, self.active_runs.list().await?);
        Ok(limits
            .into_iter()
            .map(|limit| Usage {
                running: limit.used(&active),
                limit,
            })
            .collect())
    }
}
