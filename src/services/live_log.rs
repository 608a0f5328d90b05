//! Logs of active runs that their workers send while they are written.

use super::{CoordinatorConfig, ServiceError, keepalive::Keepalive};
use crate::{
    domain::{
        Invalid,
        active_run::ActiveRun,
        log_name::{is_log, validate_file_name},
        name::RunId,
    },
    ports::{Fault, LiveLogs, SpooledFile, artifact_store::Content, live_logs::Appended},
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Read at a time.
const CHUNK: usize = 256 << 10;
/// Runs whose logs are removed in one step, so that nothing waits long for it.
const REMOVED_AT_ONCE: usize = 100;
/// Runs whose logs are in memory at the same time, to be stored.
const COLLECTED_AT_ONCE: usize = 2;

/// Takes them in, and hands them on.
pub struct LiveLogIngest {
    logs: Arc<dyn LiveLogs>,
    keepalive: Arc<Keepalive>,
    config: Arc<CoordinatorConfig>,
    collecting: Semaphore,
}

impl LiveLogIngest {
    /// Keeps them in this store.
    pub fn new(
        logs: Arc<dyn LiveLogs>,
        keepalive: Arc<Keepalive>,
        config: Arc<CoordinatorConfig>,
    ) -> Self {
        Self {
            logs,
            keepalive,
            config,
            collecting: Semaphore::new(COLLECTED_AT_ONCE),
        }
    }

    /// Adds a bit to a log of a worker's active run, from that byte on; answers the size that it has then, and the run. That
    /// the worker sends it is a sign of life.
    pub async fn append(
        &self,
        id: &RunId,
        worker: Option<&str>,
        name: &str,
        offset: u64,
        bytes: Bytes,
    ) -> Result<(u64, ActiveRun), ServiceError> {
        validate_file_name(name)?;
        if !is_log(name) {
            return Err(
                Invalid::new("filename", "is not the name of a log: it must end in .log").into(),
            );
        }
        let run = self.keepalive.active(id, worker).await?;
        let limit = self.config.live_logs;
        let appended = self.logs.append(id, name, offset, bytes, limit).await?;
        let run = self.keepalive.touch(&run).await?.unwrap_or(run);
        match appended {
            Appended::Size(size) => Ok((size, run)),
            Appended::Gap(size) => Err(ServiceError::Gap(size)),
            Appended::Full => Err(ServiceError::TooLarge {
                what: "what is kept of a run's logs while it is active",
                limit,
            }),
        }
    }

    /// A bit of a log from that byte on; none when there is no such log.
    pub async fn read(&self, id: &RunId, name: &str, offset: u64) -> Result<Option<Bytes>, Fault> {
        self.logs.read(id, name, offset, CHUNK).await
    }

    /// The names of the logs of a run.
    pub async fn names(&self, id: &RunId) -> Result<Vec<String>, Fault> {
        Ok(self
            .logs
            .list(id)
            .await?
            .into_iter()
            .map(|(name, _)| name)
            .collect())
    }

    /// All logs of a run, to be stored by `store`. They are in memory as long as that takes.
    pub async fn collect<T>(
        &self,
        id: &RunId,
        store: impl AsyncFnOnce(Vec<SpooledFile>) -> T,
    ) -> Result<T, Fault> {
        let _turn = self.collecting.acquire().await;
        let mut files = vec![];
        for (name, _) in self.logs.list(id).await? {
            let mut whole = vec![];
            while let Some(bytes) = self
                .read(id, &name, whole.len() as u64)
                .await?
                .filter(|bytes| !bytes.is_empty())
            {
                whole.extend_from_slice(&bytes);
            }
            files.push(SpooledFile {
                size: whole.len() as u64,
                name,
                content: Content::Memory(whole.into()),
            });
        }
        Ok(store(files).await)
    }

    /// The runs that there are logs of.
    pub async fn runs(&self) -> Result<Vec<RunId>, Fault> {
        self.logs.runs().await
    }

    /// These have their logs elsewhere now.
    pub async fn forget(&self, runs: &[RunId]) -> Result<(), Fault> {
        for some in runs.chunks(REMOVED_AT_ONCE) {
            self.logs.remove(some).await?;
        }
        Ok(())
    }
}
