//! `status`: what a running service is doing.

use super::{
    client::ServerArgs,
    output::{duration, print_json, table},
};
use crate::adapters::wire::{ActiveRunResponse, QueueStatsResponse, StatusResponse};
use anyhow::Result;
use serde_json::json;
use std::process::ExitCode;

/// Prints the figures of the queue, the active runs and the hosts that are backing off.
pub(super) async fn status(args: ServerArgs) -> Result<ExitCode> {
    let server = args.client()?;
    let status = server.get::<StatusResponse>(&["status"], &[]).await?;
    let stats = server
        .get::<QueueStatsResponse>(&["queue", "stats"], &[])
        .await?;
    if args.json {
        return print_json(&json!({ "status": status.json, "queue": stats.json }));
    }
    let (status, stats) = (status.parse()?, stats.parse()?);
    let (total, failure) = stats
        .finished
        .get("last_hour")
        .map_or((0, 0), |finished| (finished.total, finished.failure));
    outln!(
        "queued {}, running {}, finished in the last hour {total} ({failure} failed)",
        stats.queue_length,
        stats.active_runs
    );
    if !status.processing.is_empty() {
        print_active_runs(&status.processing);
    }
    for (host, until) in &status.rate_limit_hosts {
        outln!("{host} is rate limited until {until}");
    }
    for host in &status.slow_hosts {
        outln!("{host} did not respond in time, and is not probed for a moment");
    }
    Ok(ExitCode::SUCCESS)
}

fn print_active_runs(runs: &[ActiveRunResponse]) {
    let rows = runs.iter().map(|run| {
        let keepalive_age = run.watched.as_ref().map_or(0.0, |run| run.keepalive_age);
        [
            run.id.clone(),
            run.campaign.clone(),
            run.codebase.clone(),
            run.worker.clone().unwrap_or_default(),
            duration(run.current_duration),
            duration(keepalive_age),
        ]
    });
    outln!(
        "{}",
        table(
            [
                "run",
                "campaign",
                "codebase",
                "worker",
                "for",
                "last heartbeat"
            ],
            rows
        )
    );
}
