//! `serve`: the flags of the Python runner, and the service until a signal ends it.

use super::{program, telemetry};
use crate::{
    bootstrap,
    settings::{self, Flags, Loaded},
};
use anyhow::Result;
use clap::Args;
use figment::value::{Dict, Value};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use std::{path::PathBuf, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};

/// The number of the signal of a file that grows beyond the limit.
const SIGXFSZ: i32 = Signal::XFSZ.as_raw();

/// The layers of the settings: files, then the environment (`JANITOR_RUNNER_…`), then these flags.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct ServeArgs {
    /// Settings file, TOML or janitor.conf; may be repeated, later files override earlier ones
    #[arg(long)]
    config: Vec<PathBuf>,
    /// Store of queue and runs: sled:PATH, redb:PATH, memory: or postgresql://…
    #[arg(long)]
    store: Option<String>,
    /// Store of artifacts: a directory, or a bucket (gs:, s3:)
    #[arg(long)]
    artifacts: Option<String>,
    /// Store of logs: a directory, or a bucket (gs:, s3:, https:)
    #[arg(long)]
    logs: Option<String>,
    /// Port of the admin API [default: 9911]
    #[arg(long)]
    port: Option<u16>,
    /// Port of the public API for workers, 0 for none [default: 9919]
    #[arg(long)]
    public_port: Option<u16>,
    /// IP address or host name of both APIs, or unix:PATH; with it the admin API needs no token
    /// [default: 127.0.0.1]
    #[arg(long)]
    listen_address: Option<String>,
    /// IP address or host name of the admin API, or unix:PATH [default: 127.0.0.1]
    #[arg(long)]
    admin_listen_address: Option<String>,
    /// Assign items without probing their branches
    #[arg(long)]
    use_cached_only: bool,
    /// Directory that keeps files while their store is unavailable
    #[arg(long)]
    backup_directory: Option<PathBuf>,
    /// URL of the archive of built packages, for workers
    #[arg(long)]
    public_apt_archive_location: Option<String>,
    /// URL where workers ask which package provides a missing dependency
    #[arg(long)]
    public_dep_server_url: Option<String>,
    /// Location of the branch store: a base URL, or git=URL,bzr=URL
    #[arg(long)]
    public_vcs_location: Option<String>,
    /// Minutes without a heartbeat after which a run is ended [default: 60]
    #[arg(long)]
    run_timeout: Option<u32>,
    /// Do not assign codebases of this host; may be repeated
    #[arg(long)]
    avoid_host: Vec<String>,
    /// Log JSON in the fields of Google's Cloud Logging
    #[arg(long)]
    gcp_logging: bool,
    /// Enable debug logging
    #[arg(long)]
    debug: bool,
    /// Ignored; accepted because old command lines have it
    #[arg(long, hide = true)]
    pre_check: Option<String>,
    /// Ignored; accepted because old command lines have it
    #[arg(long, hide = true)]
    post_check: Option<String>,
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
        set("listen_address", text(&self.listen_address));
        let admin = self.admin_listen_address.as_ref();
        set(
            "admin_listen_address",
            text(&admin.or(self.listen_address.as_ref()).cloned()),
        );
        // The Python runner's flag is for both APIs, and its users want the admin API there.
        let open = Dict::from([("open".to_owned(), true.into())]);
        let is_for_both = self.listen_address.is_some() && admin.is_none();
        set("admin", is_for_both.then(|| open.into()));
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

    /// Loads the settings: these flags over all other layers.
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

/// Raises the limit of open files to the maximum: each worker in a long poll holds a connection.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = limit.current, "the limit of open files cannot be raised");
    }
}

/// Serves until SIGINT or SIGTERM.
pub(super) async fn serve(args: ServeArgs) -> Result<ExitCode> {
    let given_back = program::give_memory_back();
    let loaded = args.load()?;
    telemetry::start(&loaded.settings.log, loaded.settings.log_format)?;
    if let Err(error) = given_back {
        tracing::warn!("the allocator keeps memory that is free: {error:#}");
    }
    raise_file_limit();
    let folders = bootstrap::make_private(&loaded.settings);
    for warning in loaded.warnings.iter().chain(&folders) {
        tracing::warn!("{warning}");
    }
    let (mut interrupt, mut terminate) = (
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
    );
    // Its handler lets writes beyond the limit of a file's size fail, which would kill the process.
    let _too_large = signal(SignalKind::from_raw(SIGXFSZ))?;
    let running = bootstrap::start(&loaded.settings).await?;
    tracing::info!(
        admin = %running.admin,
        public = %running.public.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string),
        "serving; the API is described at {}/docs",
        running.admin.url()
    );
    let code = tokio::select! {
        _ = interrupt.recv() => ExitCode::SUCCESS,
        _ = terminate.recv() => ExitCode::SUCCESS,
        () = running.store_failed() => {
            tracing::error!(
                "the store has failed, and can only be opened again by another process: start this \
                 program again once the disk is in order; nothing that was said to be stored is lost"
            );
            ExitCode::FAILURE
        }
    };
    tracing::info!("ending: requests in progress are completed first");
    running.stop().await?;
    Ok(code)
}
