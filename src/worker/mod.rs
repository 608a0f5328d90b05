//! The bundled worker: runs codemods on git codebases with git and a shell. A client of the HTTP API like any other.

mod api;
mod backchannel;
mod codemod;
mod git;
mod heartbeat;
mod log;
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

/// How a worker works.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Where runs are asked for: `http://HOST:9919/runner`, or the admin API's `http://HOST:9911`.
    pub url: String,
    /// Its name and, on the public API, its password.
    pub name: String,
    /// None on the admin API.
    pub password: Option<String>,
    /// Where checkouts are made; each goes when its run ends.
    pub work_dir: PathBuf,
    /// Only this campaign.
    pub campaign: Option<String>,
    /// Only this codebase.
    pub codebase: Option<String>,
    /// Where the backchannel listens.
    pub backchannel: SocketAddr,
    /// What the runner should call to reach it, when that is another address.
    pub backchannel_url: Option<String>,
    /// The longest a codemod may take.
    pub timeout: Duration,
    /// What builds a generic target, when the assignment does not say.
    pub build_command: Option<String>,
    /// How long to wait when there is nothing to do.
    pub idle: Duration,
    /// End when there is nothing to do.
    pub until_empty: bool,
    /// End after the first run.
    pub once: bool,
}

/// Why a worker cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The runner refuses it.
    #[error("the runner at {url} answered {status}: {detail}")]
    #[expect(missing_docs)]
    Refused {
        url: String,
        status: u16,
        detail: String,
    },
    /// The runner cannot be reached.
    #[error("the runner cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The machine does not play along.
    #[error("{action}")]
    #[expect(missing_docs)]
    Io {
        action: &'static str,
        source: std::io::Error,
    },
}

impl WorkerError {
    fn io(action: &'static str) -> impl FnOnce(std::io::Error) -> Self {
        move |source| Self::Io { action, source }
    }
}

/// When a worker is to end.
#[derive(Debug, Clone)]
pub struct Ending {
    /// After the run under way.
    pub soon: CancellationToken,
    /// At once: the run under way is stopped too. Says `soon` as well.
    pub now: CancellationToken,
}

impl Default for Ending {
    fn default() -> Self {
        let now = CancellationToken::new();
        Self {
            soon: now.child_token(),
            now,
        }
    }
}

/// After a failure, it waits this long at first, then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long the runner may hold a request for work until there is some.
const WAIT: Duration = Duration::from_secs(50);

/// Takes and carries out runs until it is to end.
pub async fn work(config: WorkerConfig, end: Ending) -> Result<(), WorkerError> {
    tokio::fs::create_dir_all(&config.work_dir)
        .await
        .map_err(WorkerError::io("make the work directory"))?;
    let over = CancellationToken::new();
    let backchannel = Backchannel::start(config.backchannel, over.clone()).await?;
    let _until_then = over.drop_guard();
    let url = config
        .backchannel_url
        .clone()
        .unwrap_or_else(|| backchannel.url());
    let api = Api::new(&config, url)?;
    let mut pause = FIRST_PAUSE;
    // One that ends when there is nothing to do does not wait for something.
    let patience = if config.until_empty {
        Duration::ZERO
    } else {
        WAIT
    };
    while !end.soon.is_cancelled() {
        let asked = Instant::now();
        let taken = tokio::select! {
            biased;
            taken = api.take(patience) => taken,
            () = end.soon.cancelled() => break,
        };
        let wait = match taken {
            Ok(Some(assignment)) => {
                pause = FIRST_PAUSE;
                run::carry_out(&config, &api, &backchannel, &assignment, &end.now).await?;
                if config.once {
                    return Ok(());
                }
                continue;
            }
            Ok(None) if config.until_empty => return Ok(()),
            Ok(None) => config.idle.saturating_sub(asked.elapsed()),
            // Wrong credentials or a wrong address do not cure themselves.
            Err(
                refused @ WorkerError::Refused {
                    status: 401 | 403 | 404 | 405,
                    ..
                },
            ) => return Err(refused),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cannot ask for work, tries again"
                );
                let waited = pause;
                pause = (pause * 2).min(LONGEST_PAUSE);
                waited
            }
        };
        tokio::select! {
            () = end.soon.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
        }
    }
    Ok(())
}
