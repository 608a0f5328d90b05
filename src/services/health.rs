//! Whether everything that the runner needs can be used right now.

use super::watch::Watcher;
use crate::ports::{ArtifactStore, EventBus, HealthCheck, LogStore, RunStore};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A check that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(2);

/// What one check said: none when all is well.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct Check {
    pub name: &'static str,
    /// Without it no work can be done.
    pub needed: bool,
    pub failure: Option<String>,
}

/// Asks every adapter in use.
pub struct Health {
    /// The store of queue and runs.
    pub runs: Arc<dyn RunStore>,
    /// What shares the claims with other runners, if anything does.
    pub coordination: Option<Arc<dyn HealthCheck>>,
    /// Artifacts.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// Logs.
    pub logs: Arc<dyn LogStore>,
    /// Who listens.
    pub events: Arc<dyn EventBus>,
    /// Files can wait for their stores.
    pub has_backup: bool,
    /// Who watches the active runs.
    pub watcher: Arc<Watcher>,
    /// This process takes nothing new in any more.
    pub ending: CancellationToken,
}

/// An error with all its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

async fn check<E: std::error::Error>(
    name: &'static str,
    needed: bool,
    answer: impl Future<Output = Result<(), E>>,
) -> Check {
    let failure = match timeout(PATIENCE, answer).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(chain(&error)),
        Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
    };
    Check {
        name,
        needed,
        failure,
    }
}

impl Health {
    /// Asks all, at the same time.
    pub async fn checks(&self) -> Vec<Check> {
        let coordination = async {
            match &self.coordination {
                Some(coordination) => coordination.health_check().await,
                None => Ok(()),
            }
        };
        let files_needed = !self.has_backup;
        let (store, artifacts, logs, events, coordination) = tokio::join!(
            check("store", true, self.runs.health_check()),
            check("artifacts", files_needed, self.artifacts.health_check()),
            check("logs", files_needed, self.logs.health_check()),
            check("events", false, self.events.health_check()),
            check("coordination", false, coordination),
        );
        let watcher = Check {
            name: "watcher",
            needed: true,
            failure: self.watcher.stands_still(),
        };
        let stopping = self
            .ending
            .is_cancelled()
            .then(|| "the runner is stopping".to_owned());
        let serving = Check {
            name: "serving",
            needed: true,
            failure: stopping,
        };
        vec![
            store,
            artifacts,
            logs,
            events,
            coordination,
            watcher,
            serving,
        ]
    }
}
