//! Health checks of everything that the runner depends on.

use super::watch::Watcher;
use crate::{
    domain::redact::redact,
    ports::{ArtifactStore, ErrorChain, EventBus, HealthCheck, LogStore, RunStore},
};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A check that takes longer has failed.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// The result of one check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The name of what was checked.
    pub name: &'static str,
    /// Whether the runner cannot work without it.
    pub needed: bool,
    /// Why the check failed; `None` when it succeeded.
    pub failure: Option<String>,
}

/// Checks every adapter in use.
pub struct Health {
    /// The store of the queue and the runs.
    pub runs: Arc<dyn RunStore>,
    /// The system that shares claims with other runners, if there is one.
    pub coordination: Option<Arc<dyn HealthCheck>>,
    /// The store of artifacts.
    pub artifacts: Arc<dyn ArtifactStore>,
    /// The store of logs.
    pub logs: Arc<dyn LogStore>,
    /// The event bus.
    pub events: Arc<dyn EventBus>,
    /// Whether files are kept in the fallback directory while their stores are away.
    pub has_fallback: bool,
    /// The watcher of the active runs.
    pub watcher: Arc<Watcher>,
    /// Cancelled when this process stops and accepts no more work.
    pub ending: CancellationToken,
}

async fn check<E: std::error::Error + 'static>(
    name: &'static str,
    needed: bool,
    result: impl Future<Output = Result<(), E>>,
) -> Check {
    let failure = match timeout(CHECK_TIMEOUT, result).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(redact(&ErrorChain(&error).to_string())),
        Err(_) => Some(format!("no answer within {} s", CHECK_TIMEOUT.as_secs())),
    };
    Check {
        name,
        needed,
        failure,
    }
}

impl Health {
    /// Runs all checks at the same time.
    #[tracing::instrument(name = "services.health.checks", level = "debug", skip_all)]
    pub async fn checks(&self) -> Vec<Check> {
        let coordination = async {
            match &self.coordination {
                Some(coordination) => coordination.health_check().await,
                None => Ok(()),
            }
        };
        let files_needed = !self.has_fallback;
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
            failure: self.watcher.stalled_for(),
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
