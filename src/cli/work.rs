//! `worker`: runs the bundled worker, or manages the accounts of workers.

use super::{
    accounts, telemetry,
    work_secrets::{self, SecretArgs},
};
use crate::{
    settings::LogFormat,
    worker::{
        Sandbox, ScriptUser, Shutdown, WorkerConfig, WorkerError, upload_retry_delays,
        work as run_worker,
    },
};
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};
use tokio::signal::unix::{SignalKind, signal};

/// Which runner to work for, and how.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct WorkArgs {
    #[command(subcommand)]
    accounts: Option<accounts::AccountsCommand>,
    #[command(flatten)]
    secrets: SecretArgs,
    /// Name of this worker's account
    #[arg(long, default_value = "worker")]
    name: String,
    /// User whose processes codemods and builds are, by name or number; the worker must be root
    #[arg(long, value_name = "USER")]
    run_as: Option<String>,
    #[command(flatten)]
    sandbox: SandboxArgs,
    /// Print which protections against codemods are in force, and exit
    #[arg(long)]
    check: bool,
    /// Directory for checkouts, which no other user may write to [default: janitor-worker-UID in the
    /// system's temporary directory]
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

/// The sandbox of codemods.
#[derive(Debug, Clone, Copy, Args)]
struct SandboxArgs {
    /// Run codemods and builds in a sandbox: read-only but for the folder of their run, without
    /// other processes and without network (bwrap: Debian's package bubblewrap)
    #[arg(long, value_name = "PROGRAM")]
    sandbox: Option<SandboxProgram>,
    /// Let codemods in the sandbox use the network
    #[arg(long, requires = "sandbox")]
    sandbox_network: bool,
}

impl SandboxArgs {
    fn make(self, user: Option<ScriptUser>) -> Result<Option<Sandbox>, WorkerError> {
        let make = |_| Sandbox::new(self.sandbox_network, user);
        let made = self.sandbox.map(make);
        made.transpose()
    }

    fn described(self) -> &'static str {
        match (self.sandbox, self.sandbox_network) {
            (None, _) => "no: see --sandbox",
            (Some(SandboxProgram::Bwrap), false) => "yes, without network",
            (Some(SandboxProgram::Bwrap), true) => "yes, with network",
        }
    }
}

/// What makes sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SandboxProgram {
    Bwrap,
}

/// Returns the directory for checkouts that is used unless one is named: others have their own.
fn default_work_dir() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    std::env::temp_dir().join(format!("janitor-worker-{user}"))
}

/// Prints what keeps codemods from reading and changing what is not theirs.
fn print_measures(args: &WorkArgs) {
    let measures = work_secrets::measures();
    let as_root = "no: codemods are processes of root, which can read and change everything";
    let or_not = |holds: bool, otherwise: &'static str| if holds { "yes" } else { otherwise };
    let other_user = args.run_as.is_some();
    let not_closed = if measures.is_root { as_root } else { "no" };
    let file = "no: the user of codemods can read --password-file";
    let passed = if args.secrets.pass_env.is_empty() {
        "yes".to_owned()
    } else {
        format!(
            "yes, with {} of the worker",
            args.secrets.pass_env.join(", ")
        )
    };
    let lines = [
        ("environment made for each codemod", passed.as_str()),
        (
            "password neither in the environment nor in the arguments",
            or_not(args.secrets.secrets_on_stdin, "no"),
        ),
        (
            "password in no file that codemods can read",
            or_not(args.secrets.is_password_file_closed(other_user), file),
        ),
        (
            "memory of the worker closed to codemods",
            or_not(measures.memory_is_closed || other_user, not_closed),
        ),
        (
            "codemods without new privileges (setuid programs)",
            or_not(measures.no_new_privileges, "no"),
        ),
        (
            "codemods as another user",
            args.run_as.as_deref().unwrap_or("no: see --run-as"),
        ),
        ("codemods in a sandbox", args.sandbox.described()),
    ];
    for (measure, state) in lines {
        outln!("{measure}: {state}");
    }
}

/// Returns what notifies the worker of the signals that this process gets.
fn shutdown_by_signals() -> Result<Shutdown> {
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
    Ok(shutdown)
}

/// Works until a signal: after the first one, the active run is completed; a second one stops that
/// run.
pub(super) async fn work(args: WorkArgs) -> Result<ExitCode> {
    if let Some(command) = args.accounts {
        return accounts::accounts(command).await;
    }
    let secrets = work_secrets::take(&args.secrets)?;
    let run_as = args.run_as.as_deref().map(ScriptUser::named).transpose();
    let made = run_as.and_then(|run_as| Ok((run_as, args.sandbox.make(run_as)?)));
    let (run_as, sandbox) = match made {
        Ok(made) => made,
        Err(error) => {
            errln!("janitor-runner: {error}");
            return Ok(ExitCode::from(2));
        }
    };
    if args.check {
        print_measures(&args);
        return Ok(ExitCode::SUCCESS);
    }
    telemetry::start("info", LogFormat::Text)?;
    let config = WorkerConfig {
        password: secrets.password,
        url: secrets.url,
        name: args.name,
        work_dir: std::path::absolute(args.work_dir.unwrap_or_else(default_work_dir))?,
        campaign: args.campaign,
        codebase: args.codebase,
        backchannel: args.backchannel,
        backchannel_url: args.backchannel_url,
        timeout: Duration::from_secs(args.timeout),
        build_command: args.build_command,
        git_config: args.git_config,
        pass_env: args.secrets.pass_env,
        run_as,
        sandbox,
        owns_process: true,
        upload_retry_delays: upload_retry_delays(),
        idle: Duration::from_secs(args.idle),
        until_empty: args.until_empty,
        once: args.once,
    };
    let shutdown = shutdown_by_signals()?;
    match run_worker(config, shutdown).await {
        Err(error) if error.is_usage() => {
            errln!("janitor-runner: {error}");
            Ok(ExitCode::from(2))
        }
        ended => ended.map(|()| ExitCode::SUCCESS).map_err(Into::into),
    }
}
