//! The bundled worker: runs codemods on git codebases with git and a shell. A client of the HTTP
//! API like any other.

mod api;
mod artifacts;
mod backchannel;
mod codemod;
mod environment;
mod folders;
mod git;
mod heartbeat;
mod isolation;
mod log;
mod processes;
mod regular_file;
mod remote;
mod report;
mod repository;
mod run;
mod sandbox;
mod script_result;
mod script_user;
mod setup;
mod upload;
mod work_dir;

pub use api::upload_retry_delays;
pub use codemod::PASSWORD_VARIABLE;
pub use environment::worker_environment;
pub use sandbox::Sandbox;
pub use script_user::ScriptUser;

use api::{Api, Assignment};
use backchannel::Backchannel;
use isolation::Isolation;
use processes::Family;
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
    /// The git configuration of the worker's own commands; none: none, not even the user's.
    pub git_config: Option<PathBuf>,
    /// Whether the whole process is this worker's: then all processes below it end with each run.
    pub owns_process: bool,
    /// The names of the variables of its own environment that scripts get too.
    pub pass_env: Vec<String>,
    /// The user whose processes the codemods are; none: the worker's.
    pub run_as: Option<ScriptUser>,
    /// The sandbox of codemods and builds; none: none.
    pub sandbox: Option<Sandbox>,
    /// The delays between the attempts to upload a result.
    pub upload_retry_delays: Vec<Duration>,
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
    /// The URL of the runner is not one that requests can be sent to.
    #[error("--url {url:?}: {reason}")]
    InvalidUrl {
        /// The URL, without a password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Something else than a runner answers at the URL.
    #[error("--url: there is no runner at {url}, which answered {detail}")]
    NotARunner {
        /// The URL of the request.
        url: String,
        /// The status and the start of the response.
        detail: String,
    },
    /// The runner does not know the worker, or not by this password.
    #[error(
        "the runner at {url} refused the login (401): wrong or no password, or no worker is named \
         {name:?}; workers log in to the public API (http://HOST:9919/runner)"
    )]
    LoginRefused {
        /// The URL of the request.
        url: String,
        /// The name of the worker.
        name: String,
    },
    /// The runner could not be reached, or its response not be read.
    #[error("the runner cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// Codemods cannot be processes of that user.
    #[error("--run-as {name:?}: {reason}")]
    ScriptUser {
        /// The name of the user.
        name: String,
        /// Why not.
        reason: String,
    },
    /// Codemods cannot be run in a sandbox.
    #[error("--sandbox: {reason}")]
    Sandbox {
        /// Why not.
        reason: String,
    },
    /// The work directory may be changed by others.
    #[error("--work-dir {}: {reason}", path.display())]
    WorkDir {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
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
    /// Returns whether the worker was started with wrong arguments.
    pub const fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::InvalidUrl { .. }
                | Self::NotARunner { .. }
                | Self::WorkDir { .. }
                | Self::ScriptUser { .. }
                | Self::Sandbox { .. }
        )
    }

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

impl Shutdown {
    /// Returns one that is cancelled with this one, and can be cancelled alone.
    pub fn child(&self) -> Self {
        Self {
            graceful: self.graceful.child_token(),
            immediate: self.immediate.child_token(),
        }
    }
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
    work_dir::prepare(&config.work_dir, config.run_as).await?;
    let backchannel_end = CancellationToken::new();
    let backchannel = Backchannel::start(config.backchannel, backchannel_end.clone()).await?;
    let _backchannel_end = backchannel_end.drop_guard();
    let url = backchannel.url(config.backchannel_url.as_deref());
    // Before children are adopted, and reaped.
    let isolation = Isolation::new(config.sandbox.clone(), config.run_as).await;
    let worker = Worker {
        api: Api::new(&config, url)?,
        family: if config.owns_process {
            Family::adopt()
        } else {
            Family::default()
        },
        isolation,
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
    family: Family,
    isolation: Isolation,
    shutdown: Shutdown,
}

/// What a worker has learnt of its runner.
struct Contact {
    /// The delay after the next failure.
    retry_delay: Duration,
    /// Whether a runner has answered at the URL.
    made: bool,
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
        let mut contact = Contact {
            retry_delay: MIN_RETRY_DELAY,
            made: false,
        };
        while !self.shutdown.graceful.is_cancelled() {
            let requested = Instant::now();
            // Biased, because an assignment that has arrived would be lost if the shutdown were
            // looked at first.
            let claimed = tokio::select! {
                biased;
                claimed = self.api.claim(long_poll_wait) => claimed,
                () = self.shutdown.graceful.cancelled() => break,
            };
            let next = self.handle(claimed, requested, &mut contact).await?;
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
        contact: &mut Contact,
    ) -> Result<Next, WorkerError> {
        contact.made |= claimed.is_ok();
        match claimed {
            Ok(Some(assignment)) => {
                contact.retry_delay = MIN_RETRY_DELAY;
                let shutdown = &self.shutdown.immediate;
                let executed = run::execute(
                    &self.config,
                    &self.api,
                    &self.backchannel,
                    &self.family,
                    &self.isolation,
                    &assignment,
                    shutdown,
                )
                .await;
                match executed {
                    // The result is lost, but not the worker: the runner may come back.
                    Err(error @ WorkerError::Unreachable(_)) if !self.config.once => {
                        tracing::error!(
                            run.id = assignment.id,
                            error = &error as &dyn std::error::Error,
                            "a result could not be uploaded"
                        );
                        Ok(Next::Claim)
                    }
                    Ok(()) if !self.config.once => Ok(Next::Claim),
                    executed => executed.map(|()| Next::Exit),
                }
            }
            Ok(None) if self.config.until_empty => Ok(Next::Exit),
            // The long poll has waited already.
            Ok(None) => Ok(Next::Wait(
                self.config.idle.saturating_sub(requested.elapsed()),
            )),
            // Wrong credentials do not cure themselves.
            Err(
                refused @ (WorkerError::LoginRefused { .. }
                | WorkerError::Refused { status: 403, .. }),
            ) => Err(refused),
            // Neither does a wrong address. Once a runner has answered there, something in between
            // may do so for a while.
            Err(refused @ WorkerError::NotARunner { .. }) if !contact.made => Err(refused),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "work cannot be claimed; retrying"
                );
                let delay = contact.retry_delay;
                contact.retry_delay = (delay * 2).min(MAX_RETRY_DELAY);
                Ok(Next::Wait(delay))
            }
        }
    }
}
