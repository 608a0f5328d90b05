//! Finished runs.

use super::{ServiceError, outbox_publisher::OutboxPublisher};
use crate::{
    domain::{name::RunId, publish::PublishStatus, run::Run},
    ports::RunStore,
};
use std::sync::Arc;

/// Looks up runs, and notes what was decided about them.
pub struct Runs {
    runs: Arc<dyn RunStore>,
    outbox_publisher: Arc<OutboxPublisher>,
}

impl Runs {
    /// Looks through these ports.
    pub fn new(runs: Arc<dyn RunStore>, outbox_publisher: Arc<OutboxPublisher>) -> Self {
        Self {
            runs,
            outbox_publisher,
        }
    }

    /// The run of that id.
    pub async fn get(&self, id: &RunId) -> Result<Run, ServiceError> {
        self.runs
            .run(id)
            .await?
            .ok_or_else(|| ServiceError::not_found("run", id))
    }

    /// The latest runs, newest first.
    pub async fn latest(&self, limit: usize) -> Result<Vec<Run>, ServiceError> {
        Ok(self.runs.latest(limit).await?)
    }

    /// Notes a decision, and tells the others.
    pub async fn set_publish_status(
        &self,
        id: &RunId,
        status: PublishStatus,
    ) -> Result<Run, ServiceError> {
        if status == PublishStatus::Approved && self.get(id).await?.revision.is_none() {
            return Err(crate::domain::Invalid::new(
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
