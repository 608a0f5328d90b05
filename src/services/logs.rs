//! Logs of active runs, through the backchannel, and of finished ones, from the store.

use super::ServiceError;
use crate::{
    domain::{active_run::ActiveRun, name::RunId},
    ports::{Backchannel, Claims, LogStore, ResultStore, artifact_store::FileReader, log_store::LogFolder},
};
use std::sync::Arc;

/// Finds logs, and reaches workers.
pub struct Logs {
    claims: Arc<dyn Claims>,
    results: Arc<dyn ResultStore>,
    stored: Arc<dyn LogStore>,
    backchannel: Arc<dyn Backchannel>,
}

impl Logs {
    /// Looks through these ports.
    pub fn new(claims: Arc<dyn Claims>, results: Arc<dyn ResultStore>, stored: Arc<dyn LogStore>, backchannel: Arc<dyn Backchannel>) -> Self {
        Self { claims, results, stored, backchannel }
    }

    async fn active(&self, id: &RunId) -> Result<ActiveRun, ServiceError> {
        self.claims.get(id).await?.ok_or_else(|| ServiceError::not_found("current run", id))
    }

    /// The names of a run's logs.
    pub async fn list(&self, id: &RunId) -> Result<Vec<String>, ServiceError> {
        if let Some(run) = self.claims.get(id).await? {
            return Ok(self.backchannel.list_logs(&run).await?);
        }
        let run = self.results.run(id).await?;
        run.map(|run| run.logfilenames).ok_or_else(|| ServiceError::not_found("current run", id))
    }

    /// Opens a log: the worker's while the run is active, the stored one after it.
    pub async fn open(&self, id: &RunId, name: &str) -> Result<FileReader, ServiceError> {
        if let Some(run) = self.claims.get(id).await? {
            return Ok(self.backchannel.read_log(&run, name).await?);
        }
        let run = self.results.run(id).await?.ok_or_else(|| ServiceError::not_found("current run", id))?;
        let folder = LogFolder { codebase: run.codebase, run: run.id };
        self.stored.open(&folder, name).await?.ok_or_else(|| ServiceError::not_found("log", name))
    }

    /// Tells the worker to stop a run.
    pub async fn kill(&self, id: &RunId) -> Result<ActiveRun, ServiceError> {
        let run = self.active(id).await?;
        self.backchannel.kill(&run).await?;
        Ok(run)
    }
}
