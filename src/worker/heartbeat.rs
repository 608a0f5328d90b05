//! Signs of life while a run is under way: its log as it grows, and keepalives. What the runner says to them is obeyed.

use super::{
    WorkerError,
    api::{Api, Assignment, Told},
    log,
};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// How often the log is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Sent at a time.
const BIT: u64 = 256 << 10;
/// Keepalives in one lease, so that some may be lost; and the longest pause between two.
const IN_A_LEASE: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause between two tries while the runner cannot be reached.
const LONGEST_BACKOFF: Duration = Duration::from_secs(10);

/// Gives signs of life until it is dropped.
pub(super) struct Signs {
    /// Nobody needs the result any more.
    useless: Arc<AtomicBool>,
    _task: Option<AbortOnDropHandle<()>>,
}

struct Giver {
    api: Api,
    id: String,
    log: PathBuf,
    pause: Duration,
    stop: CancellationToken,
    useless: Arc<AtomicBool>,
    /// Bytes of the log that are there; none when no more is taken.
    sent: Option<u64>,
    last: Instant,
}

impl Signs {
    /// Begins, for a run that the runner leased.
    pub(super) fn give(
        api: &Api,
        assignment: &Assignment,
        logs: &Path,
        stop: &CancellationToken,
    ) -> Self {
        let useless = Arc::new(AtomicBool::new(false));
        let giver = assignment.lease.map(|lease| Giver {
            api: api.clone(),
            id: assignment.id.clone(),
            log: logs.join(log::NAME),
            pause: (lease / IN_A_LEASE).min(LONGEST_PAUSE),
            stop: stop.clone(),
            useless: useless.clone(),
            sent: Some(0),
            last: Instant::now(),
        });
        let task = giver.map(|giver| AbortOnDropHandle::new(tokio::spawn(giver.run())));
        Self {
            useless,
            _task: task,
        }
    }

    /// Whether nobody needs the result any more.
    pub(super) fn say_useless(&self) -> bool {
        self.useless.load(Ordering::Relaxed)
    }
}

impl Giver {
    async fn run(mut self) {
        let mut unheard = 0;
        loop {
            tokio::time::sleep(
                (LOOK_EVERY * 2_u32.saturating_pow(unheard))
                    .min(self.pause)
                    .min(LONGEST_BACKOFF),
            )
            .await;
            let told = match self.sign().await {
                Ok(told) => told,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    if unheard == 0 {
                        tracing::warn!(
                            run.id = self.id,
                            error,
                            "the runner does not hear a sign of life; it is tried again until it does"
                        );
                    }
                    unheard += 1;
                    continue;
                }
            };
            if std::mem::take(&mut unheard) > 0 {
                tracing::info!(run.id = self.id, "the runner hears signs of life again");
            }
            match told {
                Told::GoOn(_) => {}
                Told::Enough => self.sent = None,
                Told::Cancel(why) => {
                    tracing::info!(run.id = self.id, why, "the run is cancelled");
                    self.stop.cancel();
                }
                Told::Ended { stop: true } => {
                    tracing::warn!(
                        run.id = self.id,
                        "the run has ended without this worker, whose result is of no use"
                    );
                    self.useless.store(true, Ordering::Relaxed);
                    return self.stop.cancel();
                }
                Told::Ended { stop: false } => {
                    return tracing::warn!(
                        run.id = self.id,
                        "the lease ran out; the result is handed in all the same"
                    );
                }
            }
        }
    }

    /// What there is to tell now: more of the log, or that we are there.
    async fn sign(&mut self) -> Result<Told, WorkerError> {
        while let Some(sent) = self.sent {
            let bytes = more(&self.log, sent)
                .await
                .map_err(WorkerError::io("read the log of a run"))?;
            if bytes.is_empty() {
                break;
            }
            match self
                .api
                .append_log(&self.id, log::NAME, sent, bytes)
                .await?
            {
                Told::GoOn(size) => {
                    self.last = Instant::now();
                    self.sent = Some(size.unwrap_or(sent));
                }
                other => return Ok(other),
            }
        }
        if self.last.elapsed() < self.pause {
            return Ok(Told::GoOn(None));
        }
        let told = self.api.keepalive(&self.id).await?;
        self.last = Instant::now();
        Ok(told)
    }
}

/// What a file has from there on, at most a bit.
async fn more(path: &Path, from: u64) -> std::io::Result<Vec<u8>> {
    let mut file = tokio::fs::File::open(path).await?;
    file.seek(std::io::SeekFrom::Start(from)).await?;
    let mut bytes = vec![];
    file.take(BIT).read_to_end(&mut bytes).await?;
    Ok(bytes)
}
