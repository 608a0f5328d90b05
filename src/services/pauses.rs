//! Pauses, set and ended without a restart.

use super::ServiceError;
use crate::{
    domain::{
        pause::{Pause, Scope},
        time::{Time, micros},
    },
    ports::{Clock, PauseStore},
};
use std::sync::Arc;

/// Sets, lists and ends pauses.
pub struct Pauses {
    store: Arc<dyn PauseStore>,
    clock: Arc<dyn Clock>,
}

impl Pauses {
    /// Creates the use case over these ports.
    pub fn new(store: Arc<dyn PauseStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Pauses a scope until that time, or until somebody ends the pause.
    ///
    /// # Errors
    ///
    /// `Invalid` when the reason is too long or the time has passed.
    #[tracing::instrument(
        name = "services.pauses.pause",
        skip_all,
        fields(scope.kind = scope.kind(), scope.name = scope.name())
    )]
    pub async fn pause(
        &self,
        scope: Scope,
        reason: String,
        until: Option<Time>,
    ) -> Result<Pause, ServiceError> {
        let pause = Pause {
            scope,
            reason,
            since: micros(self.clock.now()),
            until,
        }
        .validate()?;
        self.store.pause(pause.clone()).await?;
        Ok(pause)
    }

    /// Ends the pause of a scope.
    ///
    /// # Errors
    ///
    /// `NotFound` when the scope is not paused.
    #[tracing::instrument(
        name = "services.pauses.unpause",
        skip_all,
        fields(scope.kind = scope.kind(), scope.name = scope.name())
    )]
    pub async fn unpause(&self, scope: &Scope) -> Result<(), ServiceError> {
        match self.store.unpause(scope).await? {
            true => Ok(()),
            false => Err(ServiceError::not_found(
                "pause",
                format!("{} {}", scope.kind(), scope.name()).trim_end(),
            )),
        }
    }

    /// Returns the pauses that hold now.
    ///
    /// # Errors
    ///
    /// When the store fails.
    #[tracing::instrument(name = "services.pauses.list", skip_all)]
    pub async fn list(&self) -> Result<Vec<Pause>, ServiceError> {
        Ok(self.store.pauses(self.clock.now()).await?)
    }
}
