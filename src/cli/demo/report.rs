//! The report that the demo prints at its end.

use super::{
    super::{
        client::Server,
        output::{duration, short, table},
    },
    Plan,
};
use crate::{
    adapters::wire::{QueueItemResponse, ResultResponse},
    domain::name::RunId,
    ports::ArtifactStore,
    settings::Settings,
};
use anyhow::Result;
use std::path::Path;
use tokio::io::AsyncReadExt;

/// The number of lines of a diff that are printed.
const MAX_DIFF_LINES: usize = 25;
/// The number of logs, and of lines of each, that are printed.
const MAX_LOGS: usize = 3;
const MAX_LOG_LINES: usize = 15;
/// How many times the queue is polled until it has the next runs.
const MAX_POLLS: usize = 50;

/// Returns whether a run has one of the results that its campaign expects.
fn expected(plan: &Plan, run: &ResultResponse) -> bool {
    let campaign = plan
        .campaigns
        .iter()
        .find(|campaign| campaign.name == run.campaign);
    campaign.is_some_and(|campaign| campaign.expected.contains(&run.code.as_str()))
}

/// Says whether something is as expected.
pub(super) fn verdict(is_expected: bool) -> String {
    match is_expected {
        true => "as expected",
        false => "NOT as expected",
    }
    .to_owned()
}

fn runs_table(plan: &Plan, runs: &[ResultResponse]) -> String {
    let rows = runs.iter().map(|run| {
        let changed = run.code == "success";
        let revision = run
            .revision
            .as_deref()
            .filter(|_| changed)
            .map(short)
            .unwrap_or_default();
        [
            run.campaign.clone(),
            run.codebase.clone(),
            run.code.clone(),
            verdict(expected(plan, run)),
            duration(run.duration),
            revision,
            run.log_id.clone(),
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

/// Returns the lines of a patch that show the change.
fn diff(patch: &str) -> Vec<&str> {
    let lines = patch
        .lines()
        .skip_while(|line| !line.starts_with("diff --git"));
    lines.take_while(|line| *line != "-- ").collect()
}

/// Replaces control characters: a repository may hold escape sequences, which a terminal would
/// obey.
fn without_control_characters(line: &str) -> String {
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

async fn print_diffs(runs: &[ResultResponse], artifacts: &dyn ArtifactStore) -> Result<()> {
    for run in runs.iter().filter(|run| run.code == "success") {
        let name = format!("{}.patch", run.campaign);
        outln!("\n{} on {}:", run.campaign, run.codebase);
        let Some(patch) = patch(artifacts, &RunId::new(run.log_id.clone()), &name).await? else {
            outln!("  no {name} among the artifacts");
            continue;
        };
        let lines = diff(&patch);
        for line in lines.iter().take(MAX_DIFF_LINES) {
            outln!("  {}", without_control_characters(line));
        }
        if lines.len() > MAX_DIFF_LINES {
            outln!(
                "  … and {} more lines in {name}",
                lines.len() - MAX_DIFF_LINES
            );
        }
    }
    Ok(())
}

/// Prints why a run did not end as expected.
async fn print_end_of_log(server: &Server, run: &ResultResponse) -> Result<()> {
    outln!(
        "\nThe end of the log of {} on {}:",
        run.campaign,
        run.codebase
    );
    let path = ["log", &run.log_id, "worker.log"];
    let text = server.get_raw(&path, &[]).await?.text().await?;
    let lines: Vec<&str> = text.lines().collect();
    for line in lines.iter().skip(lines.len().saturating_sub(MAX_LOG_LINES)) {
        outln!("  {}", without_control_characters(line));
    }
    Ok(())
}

/// Returns the queue, once every run has its next one. Those are scheduled in the background, after
/// the results were accepted, so the queue is polled.
async fn scheduled(server: &Server, runs: usize) -> Result<Vec<QueueItemResponse>> {
    let mut queue = vec![];
    for _ in 0..MAX_POLLS {
        queue = server
            .get::<Vec<QueueItemResponse>>(&["queue"], &[])
            .await?
            .parse()?;
        if queue.len() >= runs {
            break;
        }
        tokio::time::sleep(super::POLL_INTERVAL).await;
    }
    Ok(queue)
}

/// A demo that has run.
pub(super) struct Demo<'a> {
    /// The settings of the service.
    pub(super) settings: &'a Settings,
    /// The folder of the demo.
    pub(super) home: &'a Path,
    /// Whether the folder is kept.
    pub(super) kept: bool,
}

/// Prints the runs, their diffs, and what is scheduled next. Returns whether every run had the
/// expected result and was scheduled again.
///
/// # Errors
///
/// Returns an error when the service or the artifact store fails.
pub(super) async fn show(
    server: &Server,
    plan: &Plan,
    runs: &[ResultResponse],
    artifacts: &dyn ArtifactStore,
) -> Result<bool> {
    outln!("{}", runs_table(plan, runs));
    print_diffs(runs, artifacts).await?;
    let unexpected = runs.iter().filter(|run| !expected(plan, run));
    for run in unexpected.take(MAX_LOGS) {
        print_end_of_log(server, run).await?;
    }
    let queue = scheduled(server, runs.len()).await?;
    let next: Vec<String> = queue
        .iter()
        .map(|item| format!("{} on {}", item.campaign, item.codebase))
        .collect();
    outln!(
        "\nScheduled to run again, in this order: {}.",
        next.join(", ")
    );
    Ok(runs.iter().all(|run| expected(plan, run)) && next.len() >= runs.len())
}

/// Prints where everything is stored, and how it went.
pub(super) fn show_end(demo: &Demo<'_>, succeeded: bool) {
    outln!("\nLogs: {}/CODEBASE/RUN/worker.log.gz", demo.settings.logs);
    outln!("Artifacts: {}/RUN/CAMPAIGN.patch", demo.settings.artifacts);
    outln!(
        "Branches: {}/CODEBASE, branch CAMPAIGN/main",
        demo.home.join("vcs/git").display()
    );
    if demo.kept {
        outln!(
            "Kept; to look around: janitor-runner --config {} --port 9911 --public-port 9919",
            demo.home.join("runner.toml").display()
        );
    } else {
        outln!("The folder is deleted now; --keep DIR keeps it.");
    }
    outln!(
        "{}",
        if succeeded {
            "Everything went as it should."
        } else {
            "Something did not go as it should."
        }
    );
}
