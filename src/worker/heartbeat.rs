//! The heartbeat of a run: sends its log as it grows, or keepalives, and obeys what the runner
//! replies.

use super::{
    WorkerError,
    api::{Api, Assignment, HeartbeatReply},
    log::{self, RunLog},
};
use std::{
    fs::File,
    ops::ControlFlow,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// The time between two looks at the log.
const POLL_INTERVAL: Duration = Duration::from_secs(1);
/// The bytes of the log that are sent in one request.
const CHUNK_SIZE: usize = 256 << 10;
/// The number of keepalives in the time of one lease, so that some may be lost.
const RENEWALS_PER_LEASE: u32 = 4;
const MAX_KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// The maximum delay between two attempts while the runner cannot be reached.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(10);

/// A heartbeat, which is sent until this is dropped.
pub(super) struct Heartbeat {
    result_superseded: Arc<AtomicBool>,
    _task: Option<AbortOnDropHandle<()>>,
}

struct HeartbeatTask {
    api: Api,
    run_id: String,
    log: Arc<File>,
    keepalive_interval: Duration,
    stop: CancellationToken,
    result_superseded: Arc<AtomicBool>,
    /// The number of bytes of the log that the runner has; none once it accepts no more.
    log_sent: Option<u64>,
    last_sent: Instant,
}

impl Heartbeat {
    /// Starts the heartbeat of a run. Without a lease there is none: then the runner pings the
    /// worker.
    pub(super) fn start(
        api: &Api,
        assignment: &Assignment,
        log: &RunLog,
        stop: &CancellationToken,
    ) -> Self {
        let result_superseded = Arc::new(AtomicBool::new(false));
        let task = assignment.lease.map(|lease| HeartbeatTask {
            api: api.clone(),
            run_id: assignment.id.clone(),
            log: log.file(),
            keepalive_interval: (lease / RENEWALS_PER_LEASE).min(MAX_KEEPALIVE_INTERVAL),
            stop: stop.clone(),
            result_superseded: result_superseded.clone(),
            log_sent: Some(0),
            last_sent: Instant::now(),
        });
        let task = task.map(|task| AbortOnDropHandle::new(tokio::spawn(task.run())));
        Self {
            result_superseded,
            _task: task,
        }
    }

    /// Returns whether the run has ended at the runner in a way that makes its result useless.
    pub(super) fn result_superseded(&self) -> bool {
        self.result_superseded.load(Ordering::Relaxed)
    }
}

impl HeartbeatTask {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let delay = POLL_INTERVAL * 2_u32.saturating_pow(failures);
            tokio::time::sleep(delay.min(self.keepalive_interval).min(MAX_RETRY_DELAY)).await;
            match self.send().await {
                Ok(reply) => {
                    if std::mem::take(&mut failures) > 0 {
                        tracing::info!(run.id = self.run_id, "heartbeats reach the runner again");
                    }
                    if self.obey(reply).is_break() {
                        return;
                    }
                }
                Err(error) => {
                    // Only the first of several failures is logged.
                    if failures == 0 {
                        tracing::warn!(
                            run.id = self.run_id,
                            error = &error as &dyn std::error::Error,
                            "a heartbeat failed; retrying"
                        );
                    }
                    failures += 1;
                }
            }
        }
    }

    /// Acts on a reply; breaks when no more heartbeats are needed.
    fn obey(&mut self, reply: HeartbeatReply) -> ControlFlow<()> {
        match reply {
            HeartbeatReply::Continue { .. } => ControlFlow::Continue(()),
            HeartbeatReply::LogFull => {
                self.log_sent = None;
                ControlFlow::Continue(())
            }
            HeartbeatReply::Cancel { reason } => {
                tracing::info!(run.id = self.run_id, reason, "the run is cancelled");
                self.stop.cancel();
                // The lease is renewed until the result has been uploaded.
                ControlFlow::Continue(())
            }
            HeartbeatReply::RunEnded { superseded: true } => {
                tracing::warn!(
                    run.id = self.run_id,
                    "the runner has ended the run, and needs its result no more"
                );
                self.result_superseded.store(true, Ordering::Relaxed);
                self.stop.cancel();
                ControlFlow::Break(())
            }
            HeartbeatReply::RunEnded { superseded: false } => {
                tracing::warn!(
                    run.id = self.run_id,
                    "the lease has expired; the result will be uploaded all the same"
                );
                ControlFlow::Break(())
            }
        }
    }

    /// Sends what the log has grown by, or a keepalive if it is time for one.
    async fn send(&mut self) -> Result<HeartbeatReply, WorkerError> {
        while let Some(offset) = self.log_sent {
            let chunk =
                read_chunk(&self.log, offset).map_err(WorkerError::io("read the log of a run"))?;
            if chunk.is_empty() {
                break;
            }
            match self
                .api
                .append_log(&self.run_id, log::NAME, offset, chunk)
                .await?
            {
                HeartbeatReply::Continue { log_size } => {
                    self.last_sent = Instant::now();
                    // The runner's size, because it may have less than was sent before, or more.
                    self.log_sent = Some(log_size.unwrap_or(offset));
                }
                other => return Ok(other),
            }
        }
        if self.last_sent.elapsed() < self.keepalive_interval {
            return Ok(HeartbeatReply::Continue { log_size: None });
        }
        let reply = self.api.keepalive(&self.run_id).await?;
        self.last_sent = Instant::now();
        Ok(reply)
    }
}

/// Reads a file from an offset on, at most [`CHUNK_SIZE`] bytes.
fn read_chunk(file: &File, offset: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; CHUNK_SIZE];
    let size = file.read_at(&mut bytes, offset)?;
    bytes.truncate(size);
    Ok(bytes)
}
