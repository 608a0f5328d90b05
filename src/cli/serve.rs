//! `serve`: the flags of the Python runner, and the service until it is told to end.

use super::telemetry;
use crate::{
    bootstrap,
    settings::{self, Flags, Loaded},
};
use anyhow::Result;
use clap::Args;
use figment::value::{Dict, Value};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{net::IpAddr, path::PathBuf, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};

/// Where the settings come from: files, then the environment (`JANITOR_RUNNER_…`), then these flags.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ServeArgs {
    /// A settings file, TOML or janitor.conf; may be given more than once, later ones win
    #[arg(long)]
    config: Vec<PathBuf>,
    /// Where queue and runs are kept: sled:PATH, memory: or postgresql://…
    #[arg(long)]
    store: Option<String>,
    /// Where artifacts are kept: a directory, or a bucket (gs:, s3:)
    #[arg(long)]
    artifacts: Option<String>,
    /// Where logs are kept: a directory, or a bucket (gs:, s3:, https:)
    #[arg(long)]
    logs: Option<String>,
    /// Port of the admin API [default: 9911]
    #[arg(long)]
    port: Option<u16>,
    /// Port of the public API for workers [default: 9919]
    #[arg(long)]
    public_port: Option<u16>,
    /// Address of both [default: 127.0.0.1]
    #[arg(long, value_parser = address)]
    listen_address: Option<IpAddr>,
    /// Do not look at branches; hand out what is known
    #[arg(long)]
    use_cached_only: bool,
    /// Where files wait while their store is away
    #[arg(long)]
    backup_directory: Option<PathBuf>,
    /// Where the archive of built packages is, for workers
    #[arg(long)]
    public_apt_archive_location: Option<String>,
    /// Where workers ask for providers of missing dependencies
    #[arg(long)]
    public_dep_server_url: Option<String>,
    /// Where the store of branches is: a base URL, or git=URL,bzr=URL
    #[arg(long)]
    public_vcs_location: Option<String>,
    /// Minutes without a sign of life after which a run is given up [default: 60]
    #[arg(long)]
    run_timeout: Option<u32>,
    /// Leave the codebases of this host alone; may be given more than once
    #[arg(long)]
    avoid_host: Vec<String>,
    /// Log in the fields of Google's Cloud Logging
    #[arg(long)]
    gcp_logging: bool,
    /// Log more
    #[arg(long)]
    debug: bool,
    /// Accepted for old command lines; never did anything
    #[arg(long, hide = true)]
    pre_check: Option<String>,
    /// Accepted for old command lines; never did anything
    #[arg(long, hide = true)]
    post_check: Option<String>,
}

/// The Python runner takes names for addresses; `localhost` is its default.
fn address(text: &str) -> Result<IpAddr, String> {
    if text == "localhost" {
        return Ok(IpAddr::from([127, 0, 0, 1]));
    }
    text.parse()
        .map_err(|_| format!("{text:?} is not an IP address"))
}

impl ServeArgs {
    fn flags(&self) -> Flags {
        let mut flags = Dict::new();
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                flags.insert(key.to_owned(), value);
            }
        };
        let text = |value: &Option<String>| value.clone().map(Value::from);
        set("store", text(&self.store));
        set("artifacts", text(&self.artifacts));
        set("logs", text(&self.logs));
        set("port", self.port.map(Value::from));
        set("public_port", self.public_port.map(Value::from));
        set(
            "listen_address",
            self.listen_address
                .map(|address| address.to_string().into()),
        );
        set("use_cached_only", self.use_cached_only.then(|| true.into()));
        set(
            "backup_directory",
            self.backup_directory
                .as_ref()
                .map(|path| path.display().to_string().into()),
        );
        set(
            "apt_archive_location",
            text(&self.public_apt_archive_location),
        );
        set("dep_server_url", text(&self.public_dep_server_url));
        set("public_vcs_location", text(&self.public_vcs_location));
        set("run_timeout_minutes", self.run_timeout.map(Value::from));
        set(
            "avoid_hosts",
            (!self.avoid_host.is_empty()).then(|| self.avoid_host.clone().into()),
        );
        let mut telemetry = Dict::new();
        telemetry.extend(
            self.gcp_logging
                .then(|| ("format".to_owned(), "gcp".into())),
        );
        telemetry.extend(self.debug.then(|| ("log".to_owned(), "debug".into())));
        set(
            "telemetry",
            (!telemetry.is_empty()).then(|| telemetry.into()),
        );
        Flags(flags)
    }

    /// The settings that these flags and all layers below make.
    pub(super) fn load(&self) -> Result<Loaded> {
        let mut loaded = settings::load(&self.config, self.flags())?;
        for (flag, given) in [
            ("--pre-check", &self.pre_check),
            ("--post-check", &self.post_check),
        ] {
            if given.is_some() {
                loaded
                    .warnings
                    .push(format!("{flag} never did anything and is ignored"));
            }
        }
        Ok(loaded)
    }
}

/// Lets the process have as many files open as it may: each worker that waits for work is a connection.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = limit.current, "the limit of open files stays");
    }
}

/// Serves until SIGINT or SIGTERM.
pub(super) async fn serve(args: ServeArgs) -> Result<ExitCode> {
    let loaded = args.load()?;
    telemetry::start(&loaded.settings.log, loaded.settings.log_format)?;
    raise_file_limit();
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    let running = bootstrap::start(&loaded.settings).await?;
    tracing::info!(admin = %running.admin, public = %running.public, "serving; the API is described at http://{}/docs", running.admin);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("ending: requests under way are answered first");
    running.stop().await?;
    Ok(ExitCode::SUCCESS)
}
