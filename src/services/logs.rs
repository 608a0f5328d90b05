//! Logs, wherever they are: those of an active run from what its worker has sent, or from the
//! worker through its backchannel; those of a finished run from the log store. Killing a run lives
//! here too, because it reaches the worker the same way.

use super::{ServiceError, live_log::LiveLogIngest};
use crate::{
    domain::{active_run::ActiveRun, name::RunId},
    ports::{
        ActiveRunStore, Backchannel, Fault, LogStore, RunStore, artifact_store::FileReader,
        log_store::LogFolder,
    },
};
use bytes::{Bytes, BytesMut};
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::io::AsyncReadExt;
use tokio_util::sync::CancellationToken;

/// How often the live logs are polled while a client follows a log.
const LIVE_POLL_INTERVAL: Duration = Duration::from_millis(250);
/// How often the worker is polled while a client follows a log.
const WORKER_POLL_INTERVAL: Duration = Duration::from_secs(1);
/// Bytes of a log that are read in one step.
const CHUNK_SIZE: usize = 64 << 10;

/// What is not found when the store refuses to say whether there is such a log.
pub const READABLE_LOG: &str = "readable log";

/// The content of a log, in chunks.
pub type LogStream = BoxStream<'static, Result<Bytes, ServiceError>>;

/// The part of a log to read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPart {
    /// The first byte to read.
    pub offset: u64,
    /// Whether to go on with what is appended, until the run has ended.
    pub follow: bool,
}

/// Reads logs, and kills runs: the ports that this needs.
pub struct Logs {
    /// The active runs.
    pub active_runs: Arc<dyn ActiveRunStore>,
    /// The finished runs.
    pub runs: Arc<dyn RunStore>,
    /// The logs of finished runs.
    pub stored: Arc<dyn LogStore>,
    /// The logs that workers have sent of their active runs.
    pub live_log: Arc<LiveLogIngest>,
    /// The way to the workers.
    pub backchannel: Arc<dyn Backchannel>,
    /// Cancelled when the process stops, which ends every stream.
    pub ending: CancellationToken,
}

/// Where a log was found, and the content from the requested offset on.
enum Source {
    /// Among the live logs: the next chunk, empty at the end.
    Live(Bytes),
    /// At the worker.
    Worker(FileReader),
    /// In the log store.
    Stored(FileReader),
}

fn read_failed(error: std::io::Error) -> ServiceError {
    Fault::unavailable("read a log", error).into()
}

/// Reads past the first `offset` bytes, which log stores cannot skip.
async fn skip_to(mut reader: FileReader, offset: u64) -> Result<FileReader, ServiceError> {
    tokio::io::copy(&mut (&mut reader).take(offset), &mut tokio::io::sink())
        .await
        .map_err(read_failed)?;
    Ok(reader)
}

impl Logs {
    async fn active(&self, id: &RunId) -> Result<ActiveRun, ServiceError> {
        self.active_runs
            .get(id)
            .await?
            .ok_or_else(|| ServiceError::not_found("current run", id))
    }

    /// Returns the names of a run's logs.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such run. `Unsupported` or `WorkerUnreachable` when the run is
    /// active, has sent no log and its worker cannot list them.
    #[tracing::instrument(name = "services.logs.list", skip_all, fields(run.id = %id))]
    pub async fn list(&self, id: &RunId) -> Result<Vec<String>, ServiceError> {
        let Some(run) = self.active_runs.get(id).await? else {
            let run = self.runs.run(id).await?;
            return run
                .map(|run| run.logfilenames)
                .ok_or_else(|| ServiceError::not_found("current run", id));
        };
        let mut names: BTreeSet<String> = self.live_log.names(id).await?.into_iter().collect();
        match self.backchannel.list_logs(&run).await {
            Ok(others) => names.extend(others),
            // The logs that it has sent can be read without the worker.
            Err(_) if !names.is_empty() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(names.into_iter().collect())
    }

    /// Finds a log, wherever it is now.
    async fn find(&self, id: &RunId, name: &str, offset: u64) -> Result<Source, ServiceError> {
        if let Some(run) = self.active_runs.get(id).await? {
            if let Some(bytes) = self.live_log.read(id, name, offset).await? {
                return Ok(Source::Live(bytes));
            }
            return Ok(Source::Worker(
                self.backchannel.read_log(&run, name, offset).await?,
            ));
        }
        let run = self
            .runs
            .run(id)
            .await?
            .ok_or_else(|| ServiceError::not_found("current run", id))?;
        let folder = LogFolder {
            codebase: run.codebase,
            run: run.id,
        };
        let log = match self.stored.open(&folder, name).await {
            // A bucket that may not be listed refuses absent logs as it refuses others.
            Err(fault @ Fault::Refused { .. }) => {
                tracing::warn!(
                    error = &fault as &dyn std::error::Error,
                    "a log cannot be read"
                );
                return Err(ServiceError::not_found(READABLE_LOG, name));
            }
            opened => opened?.ok_or_else(|| ServiceError::not_found("log", name))?,
        };
        Ok(Source::Stored(skip_to(log, offset).await?))
    }

    /// Opens a log.
    ///
    /// The stream ends with what there is now, or, if the log is followed, with the run.
    ///
    /// # Errors
    ///
    /// `NotFound` when there is no such run or log, `Unsupported` or `WorkerUnreachable` when the
    /// log can be read only from the worker, and that fails.
    #[tracing::instrument(
        name = "services.logs.open",
        skip_all,
        fields(run.id = %id, log.name = name, follow = part.follow)
    )]
    pub async fn open(
        self: &Arc<Self>,
        id: &RunId,
        name: &str,
        part: LogPart,
    ) -> Result<LogStream, ServiceError> {
        let first = self.find(id, name, part.offset).await?;
        let log = Follower {
            logs: self.clone(),
            id: id.clone(),
            name: name.to_owned(),
            part,
            source: Some(first),
            delay: None,
        };
        let ending = self.ending.clone();
        let chunks = stream::unfold(Some(log), |log| async move { log?.next().await });
        Ok(chunks.take_until(ending.cancelled_owned()).boxed())
    }

    /// Returns whether a run has ended. While the store fails it counts as active.
    pub async fn has_ended(&self, id: &RunId) -> bool {
        matches!(self.active_runs.get(id).await, Ok(None))
    }

    /// Kills a run: marks its claim as cancelled, and notifies its worker.
    ///
    /// The mark alone is enough for a worker with a lease, which reads it with its next keepalive.
    ///
    /// # Errors
    ///
    /// `NotFound` when no such run is active. `Unsupported` or `WorkerUnreachable` when a worker
    /// without a lease cannot be notified; the claim is marked all the same.
    #[tracing::instrument(name = "services.logs.kill", skip_all, fields(run.id = %id))]
    pub async fn kill(&self, id: &RunId) -> Result<ActiveRun, ServiceError> {
        let found = self.active(id).await?;
        let run = self
            .active_runs
            .cancel(id, "killed by an operator")
            .await?
            .unwrap_or(found);
        match self.backchannel.kill(&run).await {
            Err(error) if run.lease_until.is_none() => Err(error.into()),
            Ok(()) | Err(_) => Ok(run),
        }
    }
}

/// Reads the next chunk; none at the end.
async fn read_chunk(mut reader: FileReader) -> Result<Option<(Bytes, FileReader)>, ServiceError> {
    let mut bytes = BytesMut::with_capacity(CHUNK_SIZE);
    let read = reader.read_buf(&mut bytes).await.map_err(read_failed)?;
    Ok((read > 0).then(|| (bytes.freeze(), reader)))
}

/// The reader of a log, with its position.
struct Follower {
    logs: Arc<Logs>,
    id: RunId,
    name: String,
    part: LogPart,
    /// What was found and has not been returned yet.
    source: Option<Source>,
    /// Wait this long before looking again.
    delay: Option<Duration>,
}

/// The next chunk, and the reader after it; none at the end.
type Step = Option<(Result<Bytes, ServiceError>, Option<Follower>)>;

impl Follower {
    async fn next(mut self) -> Step {
        loop {
            if let Some(delay) = self.delay.take() {
                tokio::time::sleep(delay).await;
            }
            let source = match self.source.take() {
                Some(source) => source,
                None => match self.logs.find(&self.id, &self.name, self.part.offset).await {
                    Ok(source) => source,
                    // It was there when it was opened: the run has ended meanwhile, and its worker
                    // did not upload this log.
                    Err(ServiceError::NotFound { .. }) => return None,
                    Err(ServiceError::WorkerUnreachable(_)) => {
                        self.delay = Some(WORKER_POLL_INTERVAL);
                        continue;
                    }
                    Err(error) => return Some((Err(error), None)),
                },
            };
            match source {
                Source::Live(bytes) if bytes.is_empty() && !self.part.follow => return None,
                Source::Live(bytes) if bytes.is_empty() => self.delay = Some(LIVE_POLL_INTERVAL),
                Source::Live(bytes) => return Some(self.step(bytes, None)),
                Source::Worker(reader) => match read_chunk(reader).await {
                    Ok(Some((bytes, reader))) => {
                        return Some(self.step(bytes, Some(Source::Worker(reader))));
                    }
                    Ok(None) if !self.part.follow => return None,
                    // The worker closes the connection when it ends, and uploads its logs then:
                    // the next look finds the rest in the store.
                    Ok(None) => self.delay = Some(WORKER_POLL_INTERVAL),
                    Err(_) if self.part.follow => self.delay = Some(WORKER_POLL_INTERVAL),
                    Err(error) => return Some((Err(error), None)),
                },
                Source::Stored(reader) => match read_chunk(reader).await {
                    Ok(Some((bytes, reader))) => {
                        return Some(self.step(bytes, Some(Source::Stored(reader))));
                    }
                    Ok(None) => return None,
                    Err(error) => return Some((Err(error), None)),
                },
            }
        }
    }

    /// Returns a chunk, and the reader after it.
    fn step(
        mut self,
        bytes: Bytes,
        rest: Option<Source>,
    ) -> (Result<Bytes, ServiceError>, Option<Self>) {
        self.part.offset += bytes.len() as u64;
        self.source = rest;
        (Ok(bytes), Some(self))
    }
}
