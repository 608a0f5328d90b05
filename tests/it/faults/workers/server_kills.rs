//! Servers that are killed at every step of a run.

use super::{SHORT_TIMEOUTS, codemod_until, set_flag};
use crate::support::for_each_store;
use crate::support::worker_harness::{WorkerHarness, record_outcome};
use serde_json::Value;
use std::time::{Duration, Instant};

for_each_store!(run_survives_server_kills_at_every_step);

/// A codemod that leaves an artifact of 60 MB.
const LARGE_ARTIFACT: &str =
    "head -c 60000000 /dev/zero > \"$OUTPUT_DIRECTORY/zeros\"; echo two >> file.txt";

async fn run_survives_server_kills_at_every_step(kind: &str) {
    // Restarting takes a while; the lease must outlast that.
    let mut harness = WorkerHarness::open(
        kind,
        &SHORT_TIMEOUTS.replace("lease_seconds = 4", "lease_seconds = 6"),
    )
    .await;
    let _worker = harness.worker("w1", &[]);
    kill_at_claim(&mut harness, kind).await;
    kill_between_keepalives(&mut harness, kind).await;
    kill_during_upload(&mut harness, kind).await;
    kill_before_recording(&mut harness, kind).await;
    kill_before_follow_up(&mut harness, kind).await;
}

fn record(kind: &str, file: &str, step: &str, outcome: &str) {
    let cells = [step, "SIGKILL, started again", kind, outcome];
    record_outcome(&format!("{file}-{kind}"), &cells);
}

async fn kill_at_claim(harness: &mut WorkerHarness, kind: &str) {
    harness.queue("at-claim", "echo two >> file.txt").await;
    kill_at(harness, async |harness| {
        harness.server.get("/active-runs").await.1[0]["codebase"] == "at-claim"
            || !harness.runs("at-claim").await.is_empty()
    })
    .await;
    success(harness, "at-claim").await;
    let outcome = "the worker that has the run continues; if it never learned of it, the lease expires and the item is assigned again: `success`";
    record(kind, "b1", "server, at a claim", outcome);
}

async fn kill_between_keepalives(harness: &mut WorkerHarness, kind: &str) {
    harness
        .queue("at-keepalive", &codemod_until(harness, "go"))
        .await;
    let id = harness.active_run_of("at-keepalive").await;
    harness.wait_for_log(&id, "begun").await;
    kill_at(harness, async |_| true).await;
    set_flag(harness, "go");
    harness.wait_for_run(&id, "success").await;
    assert_eq!(harness.runs("at-keepalive").await.len(), 1);
    let (_, log) = harness.server.get(&format!("/log/{id}/worker.log")).await;
    assert!(log.as_str().unwrap().contains("ended"), "{log}");
    let outcome = "the lease is kept, the log goes on where it was: `success`, the same run";
    record(kind, "b2", "server, between keepalives", outcome);
}

async fn kill_during_upload(harness: &mut WorkerHarness, kind: &str) {
    harness.queue("at-upload", LARGE_ARTIFACT).await;
    let spool = harness.path("spool");
    kill_at(harness, async |_| has_files(&spool)).await;
    let id = success(harness, "at-upload").await;
    assert_eq!(
        std::fs::metadata(harness.path("artifacts").join(&id).join("zeros"))
            .unwrap()
            .len(),
        60_000_000
    );
    let step = "server, in the middle of an upload (60 MB)";
    let outcome = "the worker uploads again: `success`, the same run, the artifact whole";
    record(kind, "b3", step, outcome);
}

async fn kill_before_recording(harness: &mut WorkerHarness, kind: &str) {
    harness.queue("at-store", LARGE_ARTIFACT).await;
    let id = harness.active_run_of("at-store").await;
    let stored = harness.path("artifacts").join(&id);
    kill_at(harness, async |_| has_files(&stored)).await;
    assert_eq!(success(harness, "at-store").await, id);
    assert_eq!(
        std::fs::metadata(stored.join("zeros")).unwrap().len(),
        60_000_000
    );
    let step = "server, with artifacts stored and the run not";
    let outcome = "the worker uploads again: `success`, the same run, stored once";
    record(kind, "b4", step, outcome);
}

async fn kill_before_follow_up(harness: &mut WorkerHarness, kind: &str) {
    harness.queue("at-follow-up", "echo two >> file.txt").await;
    kill_at(harness, async |harness| {
        harness
            .runs("at-follow-up")
            .await
            .iter()
            .any(|(_, code)| code == "success")
    })
    .await;
    let queued = |queue: &Value| {
        queue
            .as_array()
            .is_some_and(|items| items.iter().any(|item| item["codebase"] == "at-follow-up"))
    };
    harness.server.until("/queue", queued).await;
    let step = "server, with the run stored and its follow-up not";
    let outcome = "the follow-up is processed: the item is queued again";
    record(kind, "b5", step, outcome);
}

/// Kills the server once `step` is reached, and restarts it.
async fn kill_at(harness: &mut WorkerHarness, step: impl AsyncFn(&WorkerHarness) -> bool) {
    let began = Instant::now();
    while !step(harness).await {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "the step was not reached"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    harness.server.kill();
    tokio::time::sleep(Duration::from_millis(300)).await;
    harness.server.run().await;
}

fn has_files(folder: &std::path::Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| {
        entries.any(|entry| {
            entry.is_ok_and(|entry| {
                if entry.path().is_dir() {
                    has_files(&entry.path())
                } else {
                    true
                }
            })
        })
    })
}

/// Waits for the first run of a codebase that succeeds and returns its id. Runs before it may only have timed out.
async fn success(harness: &WorkerHarness, codebase: &str) -> String {
    let began = Instant::now();
    loop {
        let runs = harness.runs(codebase).await;
        if let Some((id, _)) = runs.iter().rev().find(|(_, code)| code == "success") {
            return id.clone();
        }
        assert!(
            runs.iter().all(|(_, code)| code == "worker-timeout"),
            "{runs:?}"
        );
        assert!(began.elapsed() < Duration::from_secs(40), "{runs:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
