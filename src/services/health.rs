//! Whether everything that the runner needs can be used right now.

use crate::ports::{ArtifactStore, EventBus, LogStore, ResultStore};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// A check that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// What one check said: none when all is well.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct Check {
    pub name: &'static str,
    pub failure: Option<String>,
}

/// Asks every adapter in use.
pub struct Health {
    results: Arc<dyn ResultStore>,
    artifacts: Arc<dyn ArtifactStore>,
    logs: Arc<dyn LogStore>,
    events: Arc<dyn EventBus>,
}

/// An error with all its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

async fn check<E: std::error::Error>(name: &'static str, answer: impl Future<Output = Result<(), E>>) -> Check {
    let failure = match timeout(PATIENCE, answer).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(chain(&error)),
        Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    Check { name, failure }
}

impl Health {
    /// Asks these ports.
    pub fn new(results: Arc<dyn ResultStore>, artifacts: Arc<dyn ArtifactStore>, logs: Arc<dyn LogStore>, events: Arc<dyn EventBus>) -> Self {
        Self { results, artifacts, logs, events }
    }

    /// Asks all, at the same time.
    pub async fn checks(&self) -> Vec<Check> {
        let (store, artifacts, logs, events) = tokio::join!(
            check("store", self.results.check()),
            check("artifacts", self.artifacts.check()),
            check("logs", self.logs.check()),
            check("events", self.events.check()),
        );
        vec![store, artifacts, logs, events]
    }
}
