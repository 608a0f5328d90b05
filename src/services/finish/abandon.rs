//! Ends runs without a result of their workers.

use super::{Finished, Finisher, record::Recording};
use crate::{
    domain::{
        active_run::ActiveRun,
        finish::{end, vanished},
        termination::Abandonment,
        time::Time,
    },
    services::ServiceError,
};

impl Finisher {
    /// Ends a run that no worker will work on.
    ///
    /// # Errors
    ///
    /// `NotFound` when its claim is lost and there is no stored run of this id.
    #[tracing::instrument(
        name = "services.finish.end",
        skip_all,
        fields(run.id = %active.id, run.code = code)
    )]
    pub async fn end(
        &self,
        active: &ActiveRun,
        code: &str,
        description: String,
    ) -> Result<Finished, ServiceError> {
        let lock = self.run_locks.of(&active.id);
        let mut stored = lock.lock().await;
        let run = end(active, code, description, false, self.clock.now());
        let recording = Recording::OnTime {
            active,
            unless_seen_after: None,
        };
        let finished = self.record(run, None, recording).await?;
        *stored = true;
        Ok(finished)
    }

    /// Ends a run whose worker has vanished, and stores the logs that it sent.
    ///
    /// A result that came first stays as it is, with its logs; then `first_time` of what this
    /// returns is false.
    ///
    /// # Errors
    ///
    /// `NotFound` when the worker has sent a heartbeat since `unless_seen_after`, or the claim is
    /// lost.
    #[tracing::instrument(
        name = "services.finish.abandon",
        skip_all,
        fields(run.id = %active.id, run.code = how.code)
    )]
    pub async fn abandon(
        &self,
        active: &ActiveRun,
        how: Abandonment,
        unless_seen_after: Option<Time>,
    ) -> Result<Finished, ServiceError> {
        // Before the lock, so that an upload of this run does not wait for the logs of others.
        let _permit = self.live_log.permit_for_vanished(&active.id).await?;
        // Not while an upload of the same run is being stored, which is worth more.
        let lock = self.run_locks.of(&active.id);
        let mut stored = lock.lock().await;
        // Again, since both took a while: the result may have come, with the whole logs, and those
        // that are here would be stored over them.
        if !self.is_vanished(active, unless_seen_after).await? {
            return Err(ServiceError::not_found("run", &active.id));
        }
        let run = vanished(active, how, self.clock.now());
        let run = self
            .live_log
            .collect(&active.id, &[], async |files| {
                self.with_live_logs(run, files).await
            })
            .await?;
        let recording = Recording::OnTime {
            active,
            unless_seen_after,
        };
        let finished = self.record(run, None, recording).await?;
        *stored = true;
        Ok(finished)
    }

    /// Returns whether a run is still claimed, and its worker silent.
    async fn is_vanished(
        &self,
        active: &ActiveRun,
        unless_seen_after: Option<Time>,
    ) -> Result<bool, ServiceError> {
        let now = self.active_runs.get(&active.id).await?;
        Ok(now.is_some_and(|now| {
            now.token == active.token && unless_seen_after.is_none_or(|seen| now.keepalive <= seen)
        }))
    }
}
