//! Logs wherever they are: of an active run, what its worker sent or what it shows through its backchannel; of a finished
//! one, from the store. And the order to stop a run.

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

/// How often somebody who follows a log is told of more: of what was sent here, and of what must be asked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Read at a time.
const CHUNK: usize = 64 << 10;

/// A log, bit by bit.
pub type LogStream = BoxStream<'static, Result<Bytes, ServiceError>>;

/// Which part of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPart {
    /// The first byte wanted.
    pub offset: u64,
    /// Go on with what comes, until the run has ended.
    pub follow: bool,
}

/// Finds logs, and reaches workers.
pub struct Logs {
    /// The active runs.
    pub active_runs: Arc<dyn ActiveRunStore>,
    /// The finished ones.
    pub runs: Arc<dyn RunStore>,
    /// Their logs.
    pub stored: Arc<dyn LogStore>,
    /// What workers sent of theirs.
    pub live_log: Arc<LiveLogIngest>,
    /// What else they show.
    pub backchannel: Arc<dyn Backchannel>,
    /// Nobody follows a log longer than this process runs.
    pub ending: CancellationToken,
}

/// Where a log is now.
enum Place {
    /// Here: a bit of it.
    Here(Bytes),
    /// With the worker.
    There(FileReader),
    /// In the store: the rest of it.
    Stored(FileReader),
}

fn broken(error: std::io::Error) -> ServiceError {
    Fault::unavailable("read a log", error).into()
}

async fn skipped(mut reader: FileReader, offset: u64) -> Result<FileReader, ServiceError> {
    tokio::io::copy(&mut (&mut reader).take(offset), &mut tokio::io::sink())
        .await
        .map_err(broken)?;
    Ok(reader)
}

impl Logs {
    async fn active(&self, id: &RunId) -> Result<ActiveRun, ServiceError> {
        self.active_runs
            .get(id)
            .await?
            .ok_or_else(|| ServiceError::not_found("current run", id))
    }

    /// The names of a run's logs.
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
            // What it sent can be shown without it.
            Err(_) if !names.is_empty() => {}
            Err(error) => return Err(error.into()),
        }
        Ok(names.into_iter().collect())
    }

    async fn place(&self, id: &RunId, name: &str, offset: u64) -> Result<Place, ServiceError> {
        if let Some(run) = self.active_runs.get(id).await? {
            if let Some(bytes) = self.live_log.read(id, name, offset).await? {
                return Ok(Place::Here(bytes));
            }
            return Ok(Place::There(
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
        let log = self
            .stored
            .open(&folder, name)
            .await?
            .ok_or_else(|| ServiceError::not_found("log", name))?;
        Ok(Place::Stored(skipped(log, offset).await?))
    }

    /// Opens a log. The stream is that of one moment, or goes on while the run does.
    pub async fn open(
        self: &Arc<Self>,
        id: &RunId,
        name: &str,
        part: LogPart,
    ) -> Result<LogStream, ServiceError> {
        let first = self.place(id, name, part.offset).await?;
        let log = Follower {
            logs: self.clone(),
            id: id.clone(),
            name: name.to_owned(),
            part,
            place: Some(first),
            pause: None,
        };
        let ending = self.ending.clone();
        let all = stream::unfold(Some(log), |log| async move { log?.next().await });
        Ok(all.take_until(ending.cancelled_owned()).boxed())
    }

    /// Says that a run is to stop: its claim is marked, and its worker told if that can be reached. A worker with a lease
    /// asks by itself before long, so that this is enough.
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

/// The next bit of what is read; none at its end.
async fn bit(mut reader: FileReader) -> Result<Option<(Bytes, FileReader)>, ServiceError> {
    let mut bytes = BytesMut::with_capacity(CHUNK);
    let read = reader.read_buf(&mut bytes).await.map_err(broken)?;
    Ok((read > 0).then(|| (bytes.freeze(), reader)))
}

/// Somebody who reads a log, and where they are.
struct Follower {
    logs: Arc<Logs>,
    id: RunId,
    name: String,
    part: LogPart,
    /// What was found and not handed on yet.
    place: Option<Place>,
    pause: Option<Duration>,
}

type Step = Option<(Result<Bytes, ServiceError>, Option<Follower>)>;

impl Follower {
    async fn next(mut self) -> Step {
        loop {
            if let Some(pause) = self.pause.take() {
                tokio::time::sleep(pause).await;
            }
            let place = match self.place.take() {
                Some(place) => place,
                None => match self
                    .logs
                    .place(&self.id, &self.name, self.part.offset)
                    .await
                {
                    Ok(place) => place,
                    // It was there before: now its worker cannot be asked, or did not hand it in.
                    Err(ServiceError::NotFound { .. }) => return None,
                    Err(ServiceError::WorkerUnreachable(_)) => {
                        self.pause = Some(ASK_EVERY);
                        continue;
                    }
                    Err(error) => return Some((Err(error), None)),
                },
            };
            match place {
                Place::Here(bytes) if bytes.is_empty() && !self.part.follow => return None,
                Place::Here(bytes) if bytes.is_empty() => self.pause = Some(LOOK_EVERY),
                Place::Here(bytes) => return Some(self.hand_on(bytes, None)),
                Place::There(reader) => match bit(reader).await {
                    Ok(Some((bytes, reader))) => {
                        return Some(self.hand_on(bytes, Some(Place::There(reader))));
                    }
                    Ok(None) if !self.part.follow => return None,
                    // The worker breaks off when it ends; what it handed in is in the store.
                    Ok(None) => self.pause = Some(ASK_EVERY),
                    Err(_) if self.part.follow => self.pause = Some(ASK_EVERY),
                    Err(error) => return Some((Err(error), None)),
                },
                Place::Stored(reader) => match bit(reader).await {
                    Ok(Some((bytes, reader))) => {
                        return Some(self.hand_on(bytes, Some(Place::Stored(reader))));
                    }
                    Ok(None) => return None,
                    Err(error) => return Some((Err(error), None)),
                },
            }
        }
    }

    fn hand_on(
        mut self,
        bytes: Bytes,
        rest: Option<Place>,
    ) -> (Result<Bytes, ServiceError>, Option<Self>) {
        self.part.offset += bytes.len() as u64;
        self.place = rest;
        (Ok(bytes), Some(self))
    }
}
