//! What the demo shows at its end.

use super::{
    super::{
        client::{Server, text},
        table::{duration, short, table},
    },
    Plan,
};
use crate::{domain::name::RunId, ports::ArtifactStore, settings::Settings};
use anyhow::Result;
use serde_json::Value;
use std::path::Path;
use tokio::io::AsyncReadExt;

/// Lines of a diff that are shown.
const DIFF_LINES: usize = 25;
/// How often the queue is looked at until it has the next runs.
const LOOKS: usize = 50;

fn expected(plan: &Plan, run: &Value) -> bool {
    let campaign = plan
        .campaigns
        .iter()
        .find(|campaign| campaign.name == text(run, "campaign"));
    campaign.is_some_and(|campaign| campaign.expected.contains(&text(run, "code").as_str()))
}

fn runs_table(plan: &Plan, runs: &[Value]) -> String {
    let rows = runs.iter().map(|run| {
        let seconds = run
            .get("duration")
            .and_then(Value::as_f64)
            .unwrap_or_default();
        let changed = text(run, "code") == "success";
        let revision = run
            .get("revision")
            .and_then(Value::as_str)
            .filter(|_| changed)
            .map(short)
            .unwrap_or_default();
        let verdict = if expected(plan, run) {
            "as expected"
        } else {
            "NOT as expected"
        };
        [
            text(run, "campaign"),
            text(run, "codebase"),
            text(run, "code"),
            verdict.to_owned(),
            duration(seconds),
            revision,
            text(run, "log_id"),
        ]
    });
    table(
        [
            "campaign", "codebase", "result", "", "duration", "revision", "run",
        ],
        rows,
    )
    .to_string()
}

/// The part of a patch that shows the change.
fn diff(patch: &str) -> Vec<&str> {
    let lines = patch
        .lines()
        .skip_while(|line| !line.starts_with("diff --git"));
    lines.take_while(|line| *line != "-- ").collect()
}

/// A line that a terminal takes as text, whatever a repository holds.
fn harmless(line: &str) -> String {
    line.chars()
        .map(|c| {
            if c.is_control() && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

async fn patch(artifacts: &dyn ArtifactStore, run: &RunId, name: &str) -> Result<Option<String>> {
    let Some(mut reader) = artifacts.open(run, name).await? else {
        return Ok(None);
    };
    let mut bytes = vec![];
    reader.read_to_end(&mut bytes).await?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

async fn show_diffs(runs: &[Value], artifacts: &dyn ArtifactStore) -> Result<()> {
    for run in runs.iter().filter(|run| text(run, "code") == "success") {
        let name = format!("{}.patch", text(run, "campaign"));
        println!("\n{} on {}:", text(run, "campaign"), text(run, "codebase"));
        let Some(patch) = patch(artifacts, &RunId::new(text(run, "log_id")), &name).await? else {
            println!("  no {name} among the artifacts");
            continue;
        };
        let lines = diff(&patch);
        for line in lines.iter().take(DIFF_LINES) {
            println!("  {}", harmless(line));
        }
        if lines.len() > DIFF_LINES {
            println!("  … and {} more lines in {name}", lines.len() - DIFF_LINES);
        }
    }
    Ok(())
}

/// The queue, once every run has its next one; that is made beside the requests, so it may take a moment.
async fn scheduled(server: &Server, runs: usize) -> Result<Value> {
    let mut queue = Value::Null;
    for _ in 0..LOOKS {
        queue = server.get(&["queue"], &[]).await?;
        if queue.as_array().is_some_and(|items| items.len() >= runs) {
            break;
        }
        tokio::time::sleep(super::LOOK_EVERY).await;
    }
    Ok(queue)
}

/// Where the demo was.
pub(super) struct Place<'a> {
    /// What it ran with.
    pub(super) settings: &'a Settings,
    /// Its folder.
    pub(super) home: &'a Path,
    /// Whether that stays.
    pub(super) kept: bool,
}

/// Shows the runs, what they changed, what is scheduled next, and where all of it lies. Answers whether all went as it should.
pub(super) async fn show(
    server: &Server,
    plan: &Plan,
    runs: &[Value],
    artifacts: &dyn ArtifactStore,
    place: &Place<'_>,
) -> Result<bool> {
    println!("{}", runs_table(plan, runs));
    show_diffs(runs, artifacts).await?;
    let queue = scheduled(server, runs.len()).await?;
    let next: Vec<String> = queue
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| format!("{} on {}", text(item, "campaign"), text(item, "codebase")))
        .collect();
    println!(
        "\nScheduled to run again, in this order: {}.",
        next.join(", ")
    );
    println!("Logs: {}/CODEBASE/RUN/worker.log.gz", place.settings.logs);
    println!("Artifacts: {}/RUN/CAMPAIGN.patch", place.settings.artifacts);
    println!(
        "Branches: {}/CODEBASE, branch CAMPAIGN/main",
        place.home.join("vcs/git").display()
    );
    if place.kept {
        println!(
            "Kept; to look around: janitor-runner --config {} --port 9911 --public-port 9919",
            place.home.join("runner.toml").display()
        );
    } else {
        println!("The folder goes now; --keep DIR keeps it.");
    }
    let well = runs.iter().all(|run| expected(plan, run)) && next.len() >= runs.len();
    println!(
        "{}",
        if well {
            "Everything went as it should."
        } else {
            "Something did not go as it should."
        }
    );
    Ok(well)
}
