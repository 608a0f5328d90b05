//! The bundled worker: runs codemods on git codebases with git and a shell. A client of the HTTP
//! API like any other.

mod api;
mod backchannel;
mod codemod;
mod folders;
mod git;
mod heartbeat;
mod log;
mod report;
mod run;

pub use codemod::PASSWORD_VARIABLE;

use api::{Api, Assignment};
use backchannel::Backchannel;
use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// The delay after a first failure; it doubles with each further one.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(60);
/// How long the runner may hold a request for work until there is some.
const LONG_POLL_WAIT: Duration = Duration::from_secs(50);

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The URL of the runner: `http://HOST:9919/runner`, or the admin API's `http://HOST:9911`.
    pub url: String,
    /// The name of the worker.
    pub name: String,
    /// The password of its account; none on the admin API.
    pub password: Option<String>,
    /// The directory of checkouts; each is deleted when its run ends.
    pub work_dir: PathBuf,
    /// The only campaign whose runs it claims; none: any.
    pub campaign: Option<String>,
    /// The only codebase whose runs it claims; none: any.
    pub codebase: Option<String>,
    /// The address that the backchannel listens on.
    pub backchannel: SocketAddr,
    /// The URL by which the runner reaches the backchannel, when that is not its address.
    pub backchannel_url: Option<String>,
    /// How long a codemod may take.
    pub timeout: Duration,
    /// The command that builds a generic target, when the assignment has none.
    pub build_command: Option<String>,
    /// How long to wait when the queue is empty.
    pub idle: Duration,
    /// Whether the worker exits when the queue is empty.
    pub until_empty: bool,
    /// Whether the worker exits after the first run.
    pub once: bool,
}

/// Why a worker cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The runner rejected a request.
    #[error("the runner at {url} answered {status}: {detail}")]
    Refused {
        /// The URL of the request.
        url: String,
        /// The status of the response.
        status: u16,
        /// The start of the response's body.
        detail: String,
    },
    /// The runner could not be reached, or its response not be read.
    #[error("the runner cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The machine failed.
    #[error("{action}")]
    Io {
        /// What was to be done.
        action: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl WorkerError {
    fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

/// Notifies a worker when to exit.
#[derive(Debug, Clone)]
pub struct Shutdown {
    /// Cancelled: it exits after the active run.
    pub graceful: CancellationToken,
    /// Cancelled: it stops the active run too. This cancels `graceful` as well.
    pub immediate: CancellationToken,
}

impl Default for Shutdown {
    fn default() -> Self {
        let immediate = CancellationToken::new();
        Self {
            graceful: immediate.child_token(),
            immediate,
        }
    }
}

/// Claims and executes runs until it is shut down.
///
/// # Errors
///
/// Returns an error when the machine fails, or when the runner rejects the worker itself. A runner
/// that cannot be reached is no error: it is tried again.
pub async fn work(config: WorkerConfig, shutdown: Shutdown) -> Result<(), WorkerError> {
    tokio::fs::create_dir_all(&config.work_dir)
        .await
        .map_err(WorkerError::io("make the work directory"))?;
    let backchannel_end = CancellationToken::new();
    let backchannel = Backchannel::start(config.backchannel, backchannel_end.clone()).await?;
    let _backchannel_end = backchannel_end.drop_guard();
    let url = config
        .backchannel_url
        .clone()
        .unwrap_or_else(|| backchannel.url());
    let worker = Worker {
        api: Api::new(&config, url)?,
        config,
        backchannel,
        shutdown,
    };
    worker.run().await
}

/// A worker whose backchannel is listening.
struct Worker {
    config: WorkerConfig,
    api: Api,
    backchannel: Backchannel,
    shutdown: Shutdown,
}

/// What a worker does after a request for work.
enum Next {
    /// It exits.
    Exit,
    /// It requests more work at once.
    Claim,
    /// It waits before it requests more work.
    Wait(Duration),
}

impl Worker {
    async fn run(&self) -> Result<(), WorkerError> {
        // A worker that exits when the queue is empty must not wait for work either.
        let long_poll_wait = if self.config.until_empty {
            Duration::ZERO
        } else {
            LONG_POLL_WAIT
        };
        let mut retry_delay = MIN_RETRY_DELAY;
        while !self.shutdown.graceful.is_cancelled() {
            let requested = Instant::now();
            // Biased, because an assignment that has arrived would be lost if the shutdown were
            // looked at first.
            let claimed = tokio::select! {
                biased;
                claimed = self.api.claim(long_poll_wait) => claimed,
                () = self.shutdown.graceful.cancelled() => break,
            };
            let next = self.handle(claimed, requested, &mut retry_delay).await?;
            let delay = match next {
                Next::Exit => return Ok(()),
                Next::Claim => continue,
                Next::Wait(delay) => delay,
            };
            tokio::select! {
                () = self.shutdown.graceful.cancelled() => break,
                () = tokio::time::sleep(delay) => {}
            }
        }
        Ok(())
    }

    /// Executes the run that was claimed, if one was; returns what comes next.
    async fn handle(
        &self,
        claimed: Result<Option<Assignment>, WorkerError>,
        requested: Instant,
        retry_delay: &mut Duration,
    ) -> Result<Next, WorkerError> {
        match claimed {
            Ok(Some(assignment)) => {
                *retry_delay = MIN_RETRY_DELAY;
                let shutdown = &self.shutdown.immediate;
                run::execute(
                    &self.config,
                    &self.api,
                    &self.backchannel,
                    &assignment,
                    shutdown,
                )
                .await?;
                Ok(if self.config.once {
                    Next::Exit
                } else {
                    Next::Claim
                })
            }
            Ok(None) if self.config.until_empty => Ok(Next::Exit),
            // The long poll has waited already.
            Ok(None) => Ok(Next::Wait(
                self.config.idle.saturating_sub(requested.elapsed()),
            )),
            // Wrong credentials or a wrong address do not cure themselves.
            Err(
                refused @ WorkerError::Refused {
                    status: 401 | 403 | 404 | 405,
                    ..
                },
            ) => Err(refused),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "work cannot be claimed; retrying"
                );
                let delay = *retry_delay;
                *retry_delay = (delay * 2).min(MAX_RETRY_DELAY);
                Ok(Next::Wait(delay))
            }
        }
    }
}
