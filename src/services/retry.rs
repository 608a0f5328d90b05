//! What becomes of a queue item, and of its worker, when a run has ended.

use super::{CoordinatorConfig, ServiceError};
use crate::{
    domain::{
        pause::{Pause, Scope},
        retry::Disposition,
        run::Run,
    },
    ports::{Clock, Credentials, Parking, PauseStore, Randomness},
};
use std::sync::Arc;

/// Decides by the deployment's rules.
pub struct RetryPolicy {
    /// What is known of items.
    pub parking: Arc<dyn Parking>,
    /// Where workers are quarantined.
    pub pauses: Arc<dyn PauseStore>,
    /// Who failed how often.
    pub credentials: Arc<dyn Credentials>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The source of jitter.
    pub randomness: Arc<dyn Randomness>,
    /// The rules.
    pub config: Arc<CoordinatorConfig>,
}

impl RetryPolicy {
    /// What becomes of the item of a run.
    pub async fn of(&self, run: &Run) -> Result<Disposition, ServiceError> {
        if self.config.retries.rule(run).is_none() {
            return Ok(Disposition::Complete);
        }
        // The item is held, so nobody changes this meanwhile.
        let Some(entry) = self.parking.entry(run.queue_id).await? else {
            return Ok(Disposition::Complete);
        };
        Ok(self.config.retries.decide(
            run,
            entry.state.attempts,
            self.randomness.fraction(),
            self.clock.now(),
        ))
    }

    /// Takes a worker that fails again and again out of service. To miss it once does no harm: the next failure counts too.
    pub async fn quarantine(&self, run: &Run) {
        let (Some(worker), Some(true)) = (&run.worker, self.config.quarantine.worker_at_fault(run))
        else {
            return;
        };
        if let Err(error) = self.look_at(worker, run).await {
            tracing::warn!(
                worker,
                error = &error as &dyn std::error::Error,
                "it is not known whether a worker fails too often"
            );
        }
    }

    async fn look_at(&self, worker: &str, run: &Run) -> Result<(), ServiceError> {
        let failures = self
            .credentials
            .account(worker)
            .await?
            .map_or(0, |account| account.failures);
        if !self.config.quarantine.quarantines(failures) {
            return Ok(());
        }
        let (scope, now) = (Scope::Worker(worker.to_owned()), self.clock.now());
        if self
            .pauses
            .pauses(now)
            .await?
            .iter()
            .any(|pause| pause.scope == scope)
        {
            return Ok(());
        }
        let reason = format!(
            "quarantined after {failures} failures in a row, the last was {} in run {}",
            run.code, run.id
        );
        tracing::error!(
            worker,
            failures,
            "a worker fails again and again, and gets no more work until its pause is ended"
        );
        Ok(self
            .pauses
            .pause(Pause {
                scope,
                reason,
                since: now,
                until: None,
            })
            .await?)
    }
}
