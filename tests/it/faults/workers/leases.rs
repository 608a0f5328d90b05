//! Workers with leases that are killed, suspended, or asked to stop.

use super::{SHORT_TIMEOUTS, codemod_until, seconds, set_flag};
use crate::support::{
    for_each_store,
    process::send,
    worker_harness::{Worker, WorkerHarness, record_outcome},
};
use serde_json::json;
use std::time::{Duration, Instant};

for_each_store!(
    killed_worker_times_out_and_its_item_runs_again,
    late_result_of_a_suspended_worker_is_accepted,
    suspended_worker_stops_if_another_has_its_item,
    kill_request_stops_the_worker,
);

async fn killed_worker_times_out_and_its_item_runs_again(kind: &str) {
    let harness = WorkerHarness::open(kind, SHORT_TIMEOUTS).await;
    harness
        .queue("killed", &codemod_until(&harness, "go"))
        .await;
    // Its backchannel is unreachable, so that the log is what it sent.
    let mut first = harness.worker("w1", &["--backchannel-url", "http://127.0.0.1:1/"]);
    let id = harness.active_run_of("killed").await;
    harness.wait_for_log(&id, "begun").await;
    let died = Instant::now();
    first.kill();
    let ended = harness.wait_for_run(&id, "worker-timeout").await;
    let after = seconds(died);
    assert_eq!(ended["transient"], json!(true));
    assert_eq!(ended["logfilenames"], json!(["worker.log"]));
    assert!(
        harness
            .server
            .get(&format!("/log/{id}/worker.log"))
            .await
            .1
            .as_str()
            .unwrap()
            .contains("begun")
    );
    set_flag(&harness, "go");
    let _second = harness.worker("w2", &[]);
    let runs = harness
        .server
        .until("/runs?limit=9", |runs| {
            runs.as_array().is_some_and(|runs| runs.len() == 2)
        })
        .await;
    assert_eq!(runs[0]["code"], json!("success"));
    assert_eq!(runs[0]["codebase"], json!("killed"));
    record_outcome(
        &format!("a1-{kind}"),
        &[
            "worker with a lease",
            "SIGKILL in mid-run",
            kind,
            &format!(
                "`worker-timeout` after {after} (lease 4 s), with the log that it had sent; the item is assigned again from its position, and succeeds"
            ),
        ],
    );
}

async fn late_result_of_a_suspended_worker_is_accepted(kind: &str) {
    let harness = WorkerHarness::open(kind, SHORT_TIMEOUTS).await;
    harness
        .queue("stopped", &codemod_until(&harness, "go"))
        .await;
    let worker = harness.worker("w1", &["--once"]);
    let id = harness.active_run_of("stopped").await;
    harness.wait_for_log(&id, "begun").await;
    worker.signal("STOP");
    harness.wait_for_run(&id, "worker-timeout").await;
    set_flag(&harness, "go");
    worker.signal("CONT");
    let late = harness.wait_for_run(&id, "success").await;
    assert!(late["revision"].is_string());
    assert_eq!(harness.runs("stopped").await.len(), 1);
    assert!(
        harness
            .server
            .get(&format!("/log/{id}/worker.log"))
            .await
            .1
            .as_str()
            .unwrap()
            .contains("ended")
    );
    // The late result removed the item, and the follow-up enqueued the next one.
    harness
        .server
        .until("/queue", |queue| {
            queue
                .as_array()
                .is_some_and(|queue| queue.len() == 1 && queue[0]["queue_id"] != late["queue_id"])
        })
        .await;
    record_outcome(
        &format!("a2-{kind}"),
        &[
            "worker with a lease",
            "SIGSTOP until its lease is over, then SIGCONT",
            kind,
            "`worker-timeout`, then its late result in the place of that: `success`; the item is not run again",
        ],
    );
}

async fn suspended_worker_stops_if_another_has_its_item(kind: &str) {
    let harness = WorkerHarness::open(kind, SHORT_TIMEOUTS).await;
    harness.queue("taken", &codemod_until(&harness, "go")).await;
    let mut first = harness.worker("w1", &["--once"]);
    let id = harness.active_run_of("taken").await;
    harness.wait_for_log(&id, "begun").await;
    first.signal("STOP");
    harness.wait_for_run(&id, "worker-timeout").await;
    let _second = harness.worker("w2", &["--once"]);
    let second = harness.active_run_of("taken").await;
    first.signal("CONT");
    let began = Instant::now();
    while !first.has_ended() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "it is still running: {}",
            std::fs::read_to_string(harness.path("w1.log")).unwrap()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    set_flag(&harness, "go");
    harness.wait_for_run(&second, "success").await;
    let mut runs = harness.runs("taken").await;
    runs.sort_by_key(|(_, code)| code.clone());
    assert_eq!(
        runs,
        [
            (second, "success".to_owned()),
            (id, "worker-timeout".to_owned())
        ]
    );
    record_outcome(
        &format!("a3-{kind}"),
        &[
            "worker with a lease",
            "SIGSTOP until another worker has its item, then SIGCONT",
            kind,
            "`worker-timeout`; it learns that its result is of no use, stops its codemod and goes on to other work; the other's run: `success`",
        ],
    );
}

async fn kill_request_stops_the_worker(kind: &str) {
    let harness = WorkerHarness::open(kind, SHORT_TIMEOUTS).await;
    for (number, (extra, how)) in [
        (vec![], "through the backchannel"),
        (
            vec!["--backchannel-url", "http://127.0.0.1:1/"],
            "by its next heartbeat, the backchannel being unreachable",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let codebase = format!("kill-{number}");
        harness
            .queue(&codebase, &codemod_until(&harness, "never"))
            .await;
        let _worker: Worker = harness.worker(
            "w1",
            &[&["--once", "--codebase", &codebase], extra.as_slice()].concat(),
        );
        let id = harness.active_run_of(&codebase).await;
        harness.wait_for_log(&id, "begun").await;
        let requested = Instant::now();
        assert_eq!(
            send(harness.server.request("POST", &format!("/kill/{id}")))
                .await
                .0,
            200,
            "{how}"
        );
        assert!(
            harness.server.get(&format!("/active-runs/{id}")).await.1["cancel"].is_string()
                || harness.server.get(&format!("/runs/{id}")).await.0 == 200
        );
        harness.wait_for_run(&id, "killed").await;
        record_outcome(
            &format!("c{number}-{kind}"),
            &[
                "a run",
                "`POST /kill`",
                kind,
                &format!(
                    "the worker is stopped {how}; `killed` {} later",
                    seconds(requested)
                ),
            ],
        );
    }
}
