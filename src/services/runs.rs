//! Finished runs.

use super::{ServiceError, outbox_publisher::OutboxPublisher};
use crate::{
    domain::{Invalid, name::RunId, publish::PublishStatus, run::Run},
    ports::RunStore,
};
use std::sync::Arc;

/// Looks up finished runs, and records whether they are to be published.
pub struct Runs {
    runs: Arc<dyn RunStore>,
    outbox_publisher: Arc<OutboxPublisher>,
}

impl Runs {
    /// Creates the use case over these ports.
    pub fn new(runs: Arc<dyn RunStore>, outbox_publisher: Arc<OutboxPublisher>) -> Self {
        Self {
            runs,
            outbox_publisher,
        }
    }

    /// Returns the run of that id.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is none.
    #[tracing::instrument(name = "services.runs.get", skip_all, fields(run.id = %id))]
    pub async fn get(&self, id: &RunId) -> Result<Run, ServiceError> {
        self.runs
            .run(id)
            .await?
            .ok_or_else(|| ServiceError::not_found("run", id))
    }

    /// Returns the latest runs, newest first.
    ///
    /// # Errors
    ///
    /// When the store fails.
    #[tracing::instrument(name = "services.runs.latest", skip_all)]
    pub async fn latest(&self, limit: usize) -> Result<Vec<Run>, ServiceError> {
        Ok(self.runs.latest(limit).await?)
    }

    /// Sets the publish status of a run, and publishes that; returns the run as it is then.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such run, `Invalid` when a run without a revision is approved.
    #[tracing::instrument(
        name = "services.runs.set_publish_status",
        skip_all,
        fields(run.id = %id, publish.status = %status)
    )]
    pub async fn set_publish_status(
        &self,
        id: &RunId,
        status: PublishStatus,
    ) -> Result<Run, ServiceError> {
        if status == PublishStatus::Approved && self.get(id).await?.revision.is_none() {
            return Err(Invalid::new(
                "publish_status",
                "a run without a revision cannot be approved",
            )
            .into());
        }
        let run = self.runs.set_publish_status(id, status).await?;
        let run = run.ok_or_else(|| ServiceError::not_found("run", id))?;
        self.outbox_publisher.wake();
        Ok(run)
    }
}
