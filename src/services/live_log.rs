//! Logs of active runs, which workers send while they are written.

use super::{CoordinatorConfig, ServiceError, keepalive::Keepalive};
use crate::{
    domain::{
        Invalid,
        active_run::ActiveRun,
        caller::Caller,
        log_name::{is_log, validate_file_name},
        name::RunId,
    },
    ports::{Fault, LiveLogs, SpooledFile, artifact_store::Content, live_logs::Appended},
};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Bytes of a log that are read in one step.
const CHUNK_SIZE: usize = 256 << 10;
/// Runs whose logs are removed in one step, so that no other request waits long for the store.
const REMOVE_BATCH_SIZE: usize = 100;
/// Runs whose logs may be in memory at the same time, on their way to the log store.
const MAX_CONCURRENT_COLLECTS: usize = 2;
/// Vanished workers whose runs may be ended at the same time, so that the logs of an upload do not
/// wait for those of all of them.
const MAX_CONCURRENT_VANISHED: usize = 2;

/// Accepts logs of active runs, and reads them back.
pub struct LiveLogIngest {
    logs: Arc<dyn LiveLogs>,
    keepalive: Arc<Keepalive>,
    config: Arc<CoordinatorConfig>,
    collecting: Semaphore,
    vanished: Semaphore,
}

impl LiveLogIngest {
    /// Creates the use case over this store.
    pub fn new(
        logs: Arc<dyn LiveLogs>,
        keepalive: Arc<Keepalive>,
        config: Arc<CoordinatorConfig>,
    ) -> Self {
        Self {
            logs,
            keepalive,
            config,
            collecting: Semaphore::new(MAX_CONCURRENT_COLLECTS),
            vanished: Semaphore::new(MAX_CONCURRENT_VANISHED),
        }
    }

    /// Appends `bytes` to a log of an active run, at the byte `offset`; returns the size that the
    /// log has then, and the run.
    ///
    /// It counts as a heartbeat of the worker.
    ///
    /// # Errors
    ///
    /// `Invalid` when the name is not that of a log, `NotYours`, `Gone` or `NotFound` as
    /// [`Keepalive::active`], `Gap` when the log ends before `offset`, `TooLarge` when the run has
    /// sent more than is kept.
    #[tracing::instrument(
        name = "services.live_log.append",
        level = "debug",
        skip_all,
        fields(run.id = %id, log.name = name)
    )]
    pub async fn append(
        &self,
        id: &RunId,
        caller: &Caller,
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
        let run = self.keepalive.active(id, caller).await?;
        let limit = self.config.live_logs;
        let appended = self.logs.append(id, name, offset, bytes, limit).await?;
        let run = self.keepalive.touch(&run).await?.unwrap_or(run);
        match appended {
            Appended::Size(size) => Ok((size, run)),
            Appended::Gap(size) => Err(ServiceError::Gap(size)),
            Appended::Full => Err(ServiceError::TooLarge {
                what: "the run has 100 logs already, or what is kept of them while it is active",
                limit,
            }),
        }
    }

    /// Returns a chunk of a log from the byte `offset` on, empty at its end; none when there is no
    /// such log.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn read(&self, id: &RunId, name: &str, offset: u64) -> Result<Option<Bytes>, Fault> {
        self.logs.read(id, name, offset, CHUNK_SIZE).await
    }

    /// Returns the names of the logs of a run.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn names(&self, id: &RunId) -> Result<Vec<String>, Fault> {
        Ok(self
            .logs
            .list(id)
            .await?
            .into_iter()
            .map(|(name, _)| name)
            .collect())
    }

    /// Waits for the permit to end a run whose worker has vanished; one without logs needs none.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn permit_for_vanished(
        &self,
        id: &RunId,
    ) -> Result<Option<SemaphorePermit<'_>>, Fault> {
        if self.logs.list(id).await?.is_empty() {
            return Ok(None);
        }
        Ok(self.vanished.acquire().await.ok())
    }

    /// Reads the logs of a run, those of the names `except` left out, and passes them to `store`.
    ///
    /// They are in memory until `store` has returned.
    ///
    /// # Errors
    ///
    /// When the logs cannot be read.
    #[tracing::instrument(name = "services.live_log.collect", skip_all, fields(run.id = %id))]
    pub async fn collect<T>(
        &self,
        id: &RunId,
        except: &[&str],
        store: impl AsyncFnOnce(Vec<SpooledFile>) -> T,
    ) -> Result<T, Fault> {
        let names = async || -> Result<Vec<String>, Fault> {
            let mut names = self.names(id).await?;
            names.retain(|name| !except.contains(&name.as_str()));
            Ok(names)
        };
        if names().await?.is_empty() {
            return Ok(store(vec![]).await);
        }
        // Held until the files are stored: when many runs are abandoned at once, the logs of a few
        // of them are in memory, and not those of all.
        let _permit = self.collecting.acquire().await;
        let mut files = vec![];
        // Listed again, since waiting took a while.
        for name in names().await? {
            // A log that has gone meanwhile was stored by whoever ended the run.
            if let Some(content) = self.whole(id, &name).await? {
                files.push(SpooledFile {
                    size: content.len() as u64,
                    name,
                    content: Content::Memory(content.into()),
                });
            }
        }
        Ok(store(files).await)
    }

    /// Reads a log to its end; returns `None` when there is none of that name, or none any more.
    async fn whole(&self, id: &RunId, name: &str) -> Result<Option<Vec<u8>>, Fault> {
        let mut content = vec![];
        while let Some(bytes) = self.read(id, name, content.len() as u64).await? {
            if bytes.is_empty() {
                return Ok(Some(content));
            }
            content.extend_from_slice(&bytes);
        }
        Ok(None)
    }

    /// Returns the runs that have logs here.
    ///
    /// # Errors
    ///
    /// When the store fails.
    pub async fn runs(&self) -> Result<Vec<RunId>, Fault> {
        self.logs.runs().await
    }

    /// Removes the logs of runs that have ended.
    ///
    /// # Errors
    ///
    /// When the store fails; batches before that stay removed.
    pub async fn forget(&self, runs: &[RunId]) -> Result<(), Fault> {
        for batch in runs.chunks(REMOVE_BATCH_SIZE) {
            self.logs.remove(batch).await?;
        }
        Ok(())
    }
}
