//! What becomes of a queue item, and of its worker, once a run has ended.

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

/// Applies the retry rules and the quarantine policy of the settings.
pub struct RetryPolicy {
    /// The state of queue items: earlier tries.
    pub parking: Arc<dyn Parking>,
    /// The pauses, by which workers are quarantined.
    pub pauses: Arc<dyn PauseStore>,
    /// The workers' accounts, with the failures of each in a row.
    pub credentials: Arc<dyn Credentials>,
    /// The source of the time.
    pub clock: Arc<dyn Clock>,
    /// The source of jitter.
    pub randomness: Arc<dyn Randomness>,
    /// The rules.
    pub config: Arc<CoordinatorConfig>,
}

impl RetryPolicy {
    /// Decides whether the item of a run is complete or goes back to the queue.
    ///
    /// # Errors
    ///
    /// When the store fails.
    #[tracing::instrument(name = "services.retry.of", skip_all, fields(run.id = %run.id))]
    pub async fn of(&self, run: &Run) -> Result<Disposition, ServiceError> {
        if self.config.retries.rule(run).is_none() {
            return Ok(Disposition::Complete);
        }
        // The run still holds its claim, so that nobody changes the item between this read and the
        // write that records the run.
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

    /// Pauses the worker of a run, or its node, when it has failed too often in a row. `counted_name`
    /// is the name under which its failures are counted.
    ///
    /// A failure to do so is logged and not returned: the run is stored by then, and the next
    /// failure of the worker brings it here again.
    #[tracing::instrument(name = "services.retry.quarantine", skip_all, fields(run.id = %run.id))]
    pub async fn quarantine(&self, run: &Run, counted_name: &str) {
        let worker = counted_name;
        if self.config.quarantine.worker_at_fault(run) != Some(true) {
            return;
        }
        if let Err(error) = self.quarantine_if_due(worker, run).await {
            tracing::warn!(
                worker,
                error = &error as &dyn std::error::Error,
                "cannot decide whether a worker has failed too often"
            );
        }
    }

    async fn quarantine_if_due(&self, worker: &str, run: &Run) -> Result<(), ServiceError> {
        let failures = self.credentials.failures(worker).await?;
        if !self.config.quarantine.quarantines(failures) {
            return Ok(());
        }
        let (scope, now) = (Scope::Worker(worker.to_owned()), self.clock.now());
        // An operator's pause, with its reason and its end, is not overwritten.
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
            "a worker is quarantined: it is assigned no more runs until its pause is ended"
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
