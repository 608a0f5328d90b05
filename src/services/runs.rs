//! Finished runs.

use super::{ServiceError, outbox_publisher::OutboxPublisher};
use crate::{
    domain::{name::RunId, publish::PublishStatus, run::Run},
    ports::RunStore,
};
use std::sync::Arc;

/// Looks up runs, and notes what was decided about them.
pub struct Runs {
    results: Arc<dyn RunStore>,
    relay: Arc<OutboxPublisher>,
}

impl Runs {
    /// Looks through these ports.
    pub fn new(results: Arc<dyn RunStore>, relay: Arc<OutboxPublisher>) -> Self {
        Self { results, relay }
    }

    /// The run of that id.
    pub async fn get(&self, id: &RunId) -> Result<Run, ServiceError> {
        self.results
            .run(id)
            .await?
            .ok_or_else(|| ServiceError::not_found("run", id))
    }

    /// The latest runs, newest first.
    pub async fn latest(&self, limit: usize) -> Result<Vec<Run>, ServiceError> {
        Ok(self.results.latest(limit).await?)
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
        let run = self.results.set_publish_status(id, status).await?;
        let run = run.ok_or_else(|| ServiceError::not_found("run", id))?;
        self.relay.noted();
        Ok(run)
    }
}
