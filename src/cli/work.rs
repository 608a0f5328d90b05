//! `worker`: runs the bundled worker, or manages the accounts of workers.

use super::{accounts, telemetry};
use crate::{
    settings::LogFormat,
    worker::{PASSWORD_VARIABLE, Shutdown, WorkerConfig, work as run_worker},
};
use anyhow::{Context, Result};
use clap::Args;
use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// Which runner to work for, and how.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct WorkArgs {
    #[command(subcommand)]
    accounts: Option<accounts::AccountsCommand>,
    /// URL of the runner: `http://HOST:9919/runner` with a password, or the admin API
    /// (`http://HOST:9911`)
    #[arg(long, default_value = "http://127.0.0.1:9919/runner")]
    url: String,
    /// Name of this worker's account
    #[arg(long, default_value = "worker")]
    name: String,
    /// File with the password (or `JANITOR_WORKER_PASSWORD` in the environment)
    #[arg(long)]
    password_file: Option<PathBuf>,
    /// Directory for checkouts [default: janitor-worker in the system's temporary directory]
    #[arg(long)]
    work_dir: Option<PathBuf>,
    /// Take only runs of this campaign
    #[arg(long)]
    campaign: Option<String>,
    /// Take only runs of this codebase
    #[arg(long)]
    codebase: Option<String>,
    /// Address of the backchannel, where the runner pings this worker
    #[arg(long, default_value = "127.0.0.1:0")]
    backchannel: SocketAddr,
    /// URL by which the runner reaches the backchannel, when that is not its address
    #[arg(long)]
    backchannel_url: Option<String>,
    /// Maximum number of seconds that a codemod may take
    #[arg(long, default_value_t = 4 * 3600)]
    timeout: u64,
    /// Command that builds a changed codebase; files that it puts into `OUTPUT_DIRECTORY` become
    /// artifacts
    #[arg(long)]
    build_command: Option<String>,
    /// Git configuration file of the worker's own git commands, for credentials and the like; the
    /// user's and the system's are not read
    #[arg(long)]
    git_config: Option<PathBuf>,
    /// Seconds to wait when the queue is empty
    #[arg(long, default_value_t = 5)]
    idle: u64,
    /// Exit after one run
    #[arg(long)]
    once: bool,
    /// Exit when the queue is empty
    #[arg(long)]
    until_empty: bool,
}

fn password(args: &WorkArgs) -> Result<Option<String>> {
    match &args.password_file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("--password-file {}", path.display()))?;
            Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
        }
        None => Ok(std::env::var(PASSWORD_VARIABLE).ok()),
    }
}

/// Works until a signal: after the first one, the active run is completed; a second one stops that
/// run.
pub(super) async fn work(args: WorkArgs) -> Result<ExitCode> {
    if let Some(command) = args.accounts {
        return accounts::accounts(command).await;
    }
    telemetry::start("info", LogFormat::Text)?;
    let config = WorkerConfig {
        password: password(&args)?,
        url: args.url,
        name: args.name,
        work_dir: args
            .work_dir
            .unwrap_or_else(|| std::env::temp_dir().join("janitor-worker")),
        campaign: args.campaign,
        codebase: args.codebase,
        backchannel: args.backchannel,
        backchannel_url: args.backchannel_url,
        timeout: Duration::from_secs(args.timeout),
        build_command: args.build_command,
        git_config: args.git_config,
        owns_process: true,
        idle: Duration::from_secs(args.idle),
        until_empty: args.until_empty,
        once: args.once,
    };
    let shutdown = Shutdown::default();
    let (mut interrupt, mut terminate, mut hangup) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    );
    let signalled = shutdown.clone();
    tokio::spawn(async move {
        let mut signal = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        };
        signal().await;
        tracing::info!("ending after the active run; a second signal stops that run");
        signalled.graceful.cancel();
        signal().await;
        tracing::info!("stopping the active run");
        signalled.immediate.cancel();
    });
    match run_worker(config, shutdown).await {
        Err(error) if error.is_usage() => {
            errln!("janitor-runner: {error}");
            Ok(ExitCode::from(2))
        }
        ended => ended.map(|()| ExitCode::SUCCESS).map_err(Into::into),
    }
}
