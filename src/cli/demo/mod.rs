//! `demo`: a service, two workers and example repositories in one process, without any setup. Makes
//! a folder with repositories, settings and embedded stores, runs each codemod on each repository,
//! and prints the results.

mod branches;
mod forge;
mod report;
mod repositories;
mod workers;

use super::{client::Server, telemetry};
use crate::{
    adapters::wire::{CodebaseRequest, ResultResponse, RunResponse, StatusResponse},
    bootstrap,
    settings::{self, Flags, LogFormat},
    worker::Shutdown,
};
use anyhow::{Context, Result, bail};
use clap::Args;
use figment::value::Dict;
use indicatif::{ProgressBar, ProgressStyle};
use repositories::{Campaign, Codebase};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tempfile::TempDir;
use workers::{WORKERS, Work, Workers};

/// The file with the git configuration of the workers.
const GIT_CONFIG: &str = "gitconfig";
/// The time between two looks at the service.
const POLL_INTERVAL: Duration = Duration::from_millis(150);

/// What to run, and on which repositories.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Repositories to use instead of the examples, by URL or path; they are cloned, not changed
    #[arg(long, num_args = 1.., requires = "command")]
    repo: Vec<String>,
    /// Command to run in each repository
    #[arg(long, requires = "repo")]
    command: Option<String>,
    /// Keep everything in this folder, which is created if needed, instead of a temporary one
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Settings file that overrides those of the demo, for other stores; may be repeated
    #[arg(long)]
    config: Vec<PathBuf>,
    /// Maximum number of seconds until all runs have ended
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Log what the service and the workers do
    #[arg(long)]
    debug: bool,
}

/// The folder of the demo.
enum Home {
    Kept(PathBuf),
    Temporary(TempDir),
}

impl Home {
    fn make(keep: Option<PathBuf>) -> Result<Self> {
        let Some(path) = keep else {
            return Ok(Self::Temporary(
                tempfile::Builder::new().prefix("janitor-demo-").tempdir()?,
            ));
        };
        std::fs::create_dir_all(&path).with_context(|| format!("--keep {}", path.display()))?;
        if std::fs::read_dir(&path)?.next().is_some() {
            bail!("--keep {}: the folder is not empty", path.display());
        }
        Ok(Self::Kept(path.canonicalize()?))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}

/// What the demo runs: each campaign on each codebase.
struct Plan {
    codebases: Vec<Codebase>,
    campaigns: Vec<Campaign>,
}

/// Runs the demo; succeeds only if every run had the expected result.
pub(super) async fn demo(args: DemoArgs) -> Result<ExitCode> {
    telemetry::start(if args.debug { "info" } else { "error" }, LogFormat::Text)?;
    if tokio::process::Command::new("git")
        .arg("--version")
        .output()
        .await
        .is_err()
    {
        bail!("the demo needs git, which is not installed");
    }
    bootstrap::create_privately();
    let home = Home::make(args.keep.clone())?;
    let plan = plan(&args, home.path())?;
    let settings_file = write_settings(home.path(), &plan.campaigns)?;
    let files: Vec<PathBuf> = std::iter::once(settings_file)
        .chain(args.config.clone())
        .collect();
    let mut loaded = settings::load(&files, Flags(Dict::new()))?;
    // A free port: another service may use the default one.
    loaded.settings.public_port = Some(0);
    let running = bootstrap::start(&loaded.settings).await?;
    outln!(
        "A service on {}, with {WORKERS} workers:",
        loaded.settings.store
    );
    let (server, shutdown) = (Server::new(&running.admin.url())?, Shutdown::default());
    let too_late = tokio::time::sleep(Duration::from_secs(args.timeout));
    let rounds = async {
        let public = running.public.as_ref();
        let public = public.context("the demo has a public API")?;
        let url = format!("http://{public}/runner");
        let workers = Workers::add(&server, url, home.path().to_owned()).await?;
        let runs = run(&server, &plan, &workers, &shutdown).await?;
        let artifacts = running.artifacts.as_ref();
        let mut succeeded = report::show(&server, &plan, &runs, artifacts).await?;
        if args.command.is_none() {
            succeeded &= branches::run(&server, &workers, home.path(), &shutdown).await?;
        }
        Ok(succeeded)
    };
    let outcome = tokio::select! {
        outcome = rounds => outcome,
        () = too_late => Err(anyhow::anyhow!("not all runs ended within {} s", args.timeout)),
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    shutdown.graceful.cancel();
    running.stop().await?;
    let succeeded = outcome?;
    let demo = report::Demo {
        settings: &loaded.settings,
        home: home.path(),
        kept: matches!(home, Home::Kept(_)),
    };
    report::show_end(&demo, succeeded);
    Ok(if succeeded {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn plan(args: &DemoArgs, home: &Path) -> Result<Plan> {
    match &args.command {
        Some(command) => Ok(Plan {
            codebases: repositories::given(&args.repo)?,
            campaigns: vec![Campaign::given(command)],
        }),
        None => Ok(Plan {
            codebases: repositories::make(home)?,
            campaigns: repositories::shipped(home)?,
        }),
    }
}

/// Writes the settings of this demo; a kept folder can be served with them again.
fn write_settings(home: &Path, campaigns: &[Campaign]) -> Result<PathBuf> {
    let at = |name: &str| home.join(name).display().to_string();
    let mut lines = vec![
        format!("store = {:?}", format!("sled:{}", at("db"))),
        format!("artifacts = {:?}", at("artifacts")),
        format!("logs = {:?}", at("logs")),
        format!("spool = {:?}", at("spool")),
        format!(
            "public_vcs_location = {:?}",
            format!("file://{}", at("vcs"))
        ),
        "committer = \"Demo Janitor <janitor@localhost>\"".to_owned(),
        "port = 0".to_owned(),
    ];
    for campaign in campaigns {
        lines.push(format!(
            "\n[[campaign]]\nname = {:?}\ncommand = {:?}\ngeneric_build = {{}}",
            campaign.name, campaign.command
        ));
    }
    let path = home.join("runner.toml");
    std::fs::create_dir_all(home.join("vcs/git"))?;
    std::fs::write(home.join(GIT_CONFIG), "")?;
    std::fs::write(&path, lines.join("\n") + "\n")?;
    Ok(path)
}

/// Uploads codebases and candidates, and lets workers work until each candidate has run.
/// Returns the first run of each.
async fn run(
    server: &Server,
    plan: &Plan,
    workers: &Workers,
    shutdown: &Shutdown,
) -> Result<Vec<ResultResponse>> {
    let codebases: Vec<CodebaseRequest> = plan.codebases.iter().map(Codebase::request).collect();
    server
        .post::<Value, _>(&["codebases"], &codebases)
        .await
        .context("upload the codebases")?;
    let pairs = plan.campaigns.iter().flat_map(|campaign| {
        plan.codebases
            .iter()
            .map(|codebase| (campaign.name.clone(), codebase.name.clone()))
    });
    let pairs: BTreeSet<(String, String)> = pairs.collect();
    let candidates: Vec<Value> = pairs
        .iter()
        .map(|(campaign, codebase)| json!({ "codebase": codebase, "campaign": campaign }))
        .collect();
    server
        .post::<Value, _>(&["candidates"], &candidates)
        .await
        .context("upload the candidates")?;
    let first_round = shutdown.child();
    let mut started = workers.start(vec![Work::default(); WORKERS], &first_round);
    let runs = tokio::select! {
        runs = first_runs(server, &pairs) => runs?,
        Some(ended) = started.join_next() => { ended??; bail!("a worker ended before its time") }
    };
    first_round.graceful.cancel();
    while let Some(ended) = started.join_next().await {
        ended??;
    }
    Ok(runs)
}

/// Returns the runs that have ended, the latest first.
async fn all_runs(server: &Server) -> Result<Vec<ResultResponse>> {
    let runs = server
        .get::<Vec<RunResponse>>(&["runs"], &[("limit", "1000".into())])
        .await?
        .parse()?;
    Ok(runs.into_iter().map(|run| run.result).collect())
}

/// Prints each run as it ends; returns the first run of each pair once all have one.
async fn first_runs(
    server: &Server,
    pairs: &BTreeSet<(String, String)>,
) -> Result<Vec<ResultResponse>> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} runs  {msg}")?;
    let bar = ProgressBar::new(pairs.len() as u64).with_style(style);
    let terminal = std::io::stderr().is_terminal();
    let mut first: Vec<ResultResponse> = vec![];
    loop {
        // The latest run comes first in the response.
        for run in all_runs(server).await?.into_iter().rev() {
            if first.iter().any(|seen| pair(seen) == pair(&run)) {
                continue;
            }
            let line = format!("  {} on {}: {}", run.campaign, run.codebase, run.code);
            // A progress bar that is not on a terminal drops what is printed through it.
            if terminal {
                bar.println(&line);
            } else {
                errln!("{line}");
            }
            bar.inc(1);
            first.push(run);
        }
        if first.len() >= pairs.len() {
            bar.finish_and_clear();
            return Ok(first);
        }
        let status = server.get::<StatusResponse>(&["status"], &[]).await?;
        let active: Vec<String> = status
            .parse()?
            .processing
            .iter()
            .map(|run| format!("{} on {}", run.campaign, run.codebase))
            .collect();
        bar.set_message(active.join(", "));
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn pair(run: &ResultResponse) -> (&str, &str) {
    (&run.campaign, &run.codebase)
}
