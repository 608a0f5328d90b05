//! `demo`: the whole thing on one machine, with nothing to set up. Makes a folder with repositories, settings and
//! embedded stores, serves from it, runs two workers, and shows what came out.

mod report;
mod repositories;

use super::{
    client::{Server, text},
    telemetry,
};
use crate::{
    bootstrap::{self, Running},
    settings::{self, Flags, LogFormat},
    worker::{Ending, WorkerConfig, work},
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
use tokio::task::JoinSet;

const WORKERS: usize = 2;
const LOOK_EVERY: Duration = Duration::from_millis(150);

/// What to run on what.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Repositories to change, by URL or path, instead of three made for the demo; they themselves are left as they are
    #[arg(long, num_args = 1.., requires = "command")]
    repo: Vec<String>,
    /// What to run in each of them
    #[arg(long, requires = "repo")]
    command: Option<String>,
    /// Keep everything in this folder (made if needed) rather than in one that goes
    #[arg(long)]
    keep: Option<PathBuf>,
    /// A settings file over those of the demo, to see it on other stores; may be given more than once
    #[arg(long)]
    config: Vec<PathBuf>,
    /// Give up after so many seconds
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Log what service and workers do
    #[arg(long)]
    debug: bool,
}

/// Where the demo lives.
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

/// What is to be run.
struct Plan {
    codebases: Vec<Codebase>,
    campaigns: Vec<Campaign>,
}

/// Runs the demo; ends well only if every run came to what it should.
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
    let home = Home::make(args.keep.clone())?;
    let plan = plan(&args, home.path())?;
    let settings_file = write_settings(home.path(), &plan.campaigns)?;
    let files: Vec<PathBuf> = std::iter::once(settings_file)
        .chain(args.config.clone())
        .collect();
    let loaded = settings::load(&files, Flags(Dict::new()))?;
    let running = bootstrap::start(&loaded.settings).await?;
    println!(
        "A service on {}, with {WORKERS} workers:",
        loaded.settings.store
    );
    let (server, end) = (
        Server::new(&format!("http://{}", running.admin))?,
        Ending::default(),
    );
    let outcome = tokio::select! {
        outcome = run(&server, &plan, home.path(), &running, &end) => outcome,
        () = tokio::time::sleep(Duration::from_secs(args.timeout)) => Err(anyhow::anyhow!("not all runs ended within {} s", args.timeout)),
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    end.soon.cancel();
    let well = match outcome {
        Ok(runs) => {
            let place = report::Place {
                settings: &loaded.settings,
                home: home.path(),
                kept: matches!(home, Home::Kept(_)),
            };
            report::show(&server, &plan, &runs, running.artifacts.as_ref(), &place).await?
        }
        Err(error) => {
            running.stop().await?;
            return Err(error);
        }
    };
    running.stop().await?;
    Ok(if well {
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

/// Settings that this demo runs with, and that a kept folder can be served from again.
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
        "public_port = 0".to_owned(),
    ];
    for campaign in campaigns {
        lines.push(format!(
            "\n[[campaign]]\nname = {:?}\ncommand = {:?}\ngeneric_build = {{}}",
            campaign.name, campaign.command
        ));
    }
    let path = home.join("runner.toml");
    std::fs::create_dir_all(home.join("vcs/git"))?;
    std::fs::write(&path, lines.join("\n") + "\n")?;
    Ok(path)
}

/// Uploads codebases and candidates, lets the workers work, and waits until each candidate has run.
async fn run(
    server: &Server,
    plan: &Plan,
    home: &Path,
    running: &Running,
    end: &Ending,
) -> Result<Vec<Value>> {
    let codebases: Vec<Value> = plan
        .codebases
        .iter()
        .map(|codebase| json!({ "name": codebase.name, "url": codebase.url, "vcs_type": "git" }))
        .collect();
    server
        .post(&["codebases"], &codebases.into())
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
        .post(&["candidates"], &candidates.into())
        .await
        .context("upload the candidates")?;
    let mut workers = start_workers(server, home, running, end).await?;
    let runs = tokio::select! {
        runs = watch(server, &pairs) => runs?,
        Some(ended) = workers.join_next() => { ended??; bail!("a worker ended before its time") }
    };
    end.soon.cancel();
    while let Some(ended) = workers.join_next().await {
        ended??;
    }
    Ok(runs)
}

async fn start_workers(
    server: &Server,
    home: &Path,
    running: &Running,
    end: &Ending,
) -> Result<JoinSet<Result<(), crate::worker::WorkerError>>> {
    let mut workers = JoinSet::new();
    for number in 1..=WORKERS {
        let name = format!("demo-{number}");
        let account = server
            .post(&["admin", "workers"], &json!({ "name": name }))
            .await?;
        let config = WorkerConfig {
            url: format!("http://{}/runner", running.public),
            password: Some(text(&account, "password")),
            work_dir: home.join("work").join(&name),
            name,
            campaign: None,
            codebase: None,
            backchannel: ([127, 0, 0, 1], 0).into(),
            backchannel_url: None,
            timeout: Duration::from_secs(300),
            build_command: None,
            idle: Duration::from_millis(200),
            until_empty: false,
            once: false,
        };
        workers.spawn(work(config, end.clone()));
    }
    Ok(workers)
}

/// Shows each run as it ends; answers the first run of each pair once all have one.
async fn watch(server: &Server, pairs: &BTreeSet<(String, String)>) -> Result<Vec<Value>> {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} runs  {msg}")?;
    let bar = ProgressBar::new(pairs.len() as u64).with_style(style);
    let terminal = std::io::stderr().is_terminal();
    let mut first: Vec<Value> = vec![];
    loop {
        let mut runs = server.get(&["runs"], &[("limit", "1000".into())]).await?;
        runs.as_array_mut()
            .map(|runs| runs.reverse())
            .context("the service answered no list of runs")?;
        for run in runs.as_array().into_iter().flatten() {
            let same = |seen: &Value| {
                ["campaign", "codebase"]
                    .iter()
                    .all(|field| text(seen, field) == text(run, field))
            };
            if first.iter().any(same) {
                continue;
            }
            let line = format!(
                "  {} on {}: {}",
                text(run, "campaign"),
                text(run, "codebase"),
                text(run, "code")
            );
            if terminal {
                bar.println(&line);
            } else {
                eprintln!("{line}");
            }
            bar.inc(1);
            first.push(run.clone());
        }
        if first.len() >= pairs.len() {
            bar.finish_and_clear();
            return Ok(first);
        }
        let status = server.get(&["status"], &[]).await?;
        let running: Vec<String> = status
            .get("processing")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|run| format!("{} on {}", text(run, "campaign"), text(run, "codebase")))
            .collect();
        bar.set_message(running.join(", "));
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
