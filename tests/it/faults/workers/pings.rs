//! Workers without leases, and Jenkins, in every state that a ping may find.

use super::{SHORT_TIMEOUTS, seconds};
use crate::support::{
    fake_backchannel::FakeWorker,
    for_each_store,
    process::free_port,
    worker_harness::{WorkerHarness, record_outcome},
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

for_each_store!(ping_responses_decide_runs_without_leases);

/// What a worker without a lease, or a Jenkins, responds, and the code of the run that ends because of it, if any.
struct PingCase {
    kind: &'static str,
    how: &'static str,
    set: fn(&FakeWorker, &str),
    expected_code: Option<&'static str>,
}

const PING_CASES: &[PingCase] = &[
    PingCase {
        kind: "http",
        how: "is on the run",
        set: |fake, id| fake.respond_with("/log-id", 200, id),
        expected_code: None,
    },
    PingCase {
        kind: "http",
        how: "is on another run",
        set: |fake, _| fake.respond_with("/log-id", 200, "another"),
        expected_code: Some("run-disappeared"),
    },
    PingCase {
        kind: "http",
        how: "is idle (`null`)",
        set: |fake, _| fake.respond_with("/log-id", 200, "null"),
        expected_code: Some("run-disappeared"),
    },
    PingCase {
        kind: "http",
        how: "answers 500",
        set: |fake, _| fake.respond_with("/log-id", 500, ""),
        expected_code: Some("worker-timeout"),
    },
    PingCase {
        kind: "http",
        how: "answers never",
        set: |fake, _| fake.never_respond("/log-id"),
        expected_code: Some("worker-timeout"),
    },
    PingCase {
        kind: "http",
        how: "drips bytes",
        set: |fake, _| fake.trickle("/log-id"),
        expected_code: Some("worker-timeout"),
    },
    PingCase {
        kind: "jenkins",
        how: "200, the job goes on",
        set: |fake, _| fake.respond_with("/api/json", 200, r#"{"building": true}"#),
        expected_code: None,
    },
    PingCase {
        kind: "jenkins",
        how: "404",
        set: |_, _| {},
        expected_code: Some("run-disappeared"),
    },
    PingCase {
        kind: "jenkins",
        how: "200, the job is a FAILURE",
        set: |fake, _| fake.respond_with("/api/json", 200, r#"{"result": "FAILURE"}"#),
        expected_code: Some("run-disappeared"),
    },
    PingCase {
        kind: "jenkins",
        how: "500",
        set: |fake, _| fake.respond_with("/api/json", 500, "{}"),
        expected_code: Some("worker-timeout"),
    },
    PingCase {
        kind: "jenkins",
        how: "garbage",
        set: |fake, _| fake.respond_with("/api/json", 200, "<html>"),
        expected_code: Some("worker-timeout"),
    },
    PingCase {
        kind: "jenkins",
        how: "never",
        set: |fake, _| fake.never_respond("/api/json"),
        expected_code: Some("worker-timeout"),
    },
];

/// A run that is watched, with its fake worker.
struct WatchedRun {
    case: &'static PingCase,
    id: String,
    since: Instant,
    _worker: FakeWorker,
}

async fn ping_responses_decide_runs_without_leases(store: &str) {
    // A ping is due every second, sooner than a run times out.
    let harness = WorkerHarness::open(store, SHORT_TIMEOUTS).await;
    let mut watched = vec![];
    for (number, case) in PING_CASES.iter().enumerate() {
        watched.push(start_run(&harness, &format!("case-{number}"), case).await);
    }
    let unreachable = unreachable_run(&harness).await;
    refused_connections_end_a_run(&harness, store).await;
    for (number, watched) in watched.iter().enumerate() {
        let outcome = outcome_of(&harness, watched).await;
        let name = match watched.case.kind {
            "http" => "worker without a lease (http)",
            _ => "Jenkins",
        };
        record_outcome(
            &format!("d{:02}-{store}", number + 1),
            &[name, watched.case.how, store, &outcome],
        );
    }
    harness.wait_for_run(&unreachable, "worker-timeout").await;
    let (_, active) = harness.server.get("/active-runs").await;
    let active: Vec<&str> = active
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|run| run["id"].as_str())
        .collect();
    let expected: Vec<&str> = watched
        .iter()
        .filter(|watched| watched.case.expected_code.is_none())
        .map(|watched| watched.id.as_str())
        .collect();
    assert_eq!(active, expected);
}

/// Claims a run for a fake worker that responds as the case says.
async fn start_run(harness: &WorkerHarness, codebase: &str, case: &'static PingCase) -> WatchedRun {
    let fake = FakeWorker::start().await;
    let backchannel = json!({ "kind": case.kind, "url": fake.url() });
    let id = claim(harness, codebase, &backchannel).await;
    (case.set)(&fake, &id);
    WatchedRun {
        case,
        id,
        since: Instant::now(),
        _worker: fake,
    }
}

async fn claim(harness: &WorkerHarness, codebase: &str, backchannel: &Value) -> String {
    harness.queue(codebase, "true").await;
    let body = json!({ "worker": "w1", "codebase": codebase, "backchannel": backchannel });
    let (_, run) = harness.server.post("/active-runs", &body).await;
    run["id"].as_str().unwrap().to_owned()
}

/// Claims a run for a worker behind a firewall: nobody ever listens at its address.
async fn unreachable_run(harness: &WorkerHarness) -> String {
    let url = format!("http://127.0.0.1:{}/", free_port());
    let backchannel = json!({ "kind": "http", "url": url });
    claim(harness, "unreachable", &backchannel).await
}

async fn refused_connections_end_a_run(harness: &WorkerHarness, store: &str) {
    let fake = FakeWorker::start().await;
    let backchannel = json!({ "kind": "http", "url": fake.url() });
    let id = claim(harness, "refused", &backchannel).await;
    fake.respond_with("/log-id", 200, &id);
    let began = Instant::now();
    while fake.received_requests("/log-id") == 0 {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "it is not pinged"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Long enough for the runner to store that it has responded.
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(fake);
    let died = Instant::now();
    harness.wait_for_run(&id, "run-disappeared").await;
    let outcome = format!(
        "`run-disappeared` after {}, three refusals (1 s apart here, 60 s and twice 30 s by default)",
        seconds(died)
    );
    record_outcome(
        &format!("d0-{store}"),
        &[
            "worker without a lease (http)",
            "nobody listens any more",
            store,
            &outcome,
        ],
    );
}

/// Waits for the end of a run, if one is expected, and describes it.
async fn outcome_of(harness: &WorkerHarness, watched: &WatchedRun) -> String {
    let WatchedRun {
        case, id, since, ..
    } = watched;
    let Some(code) = case.expected_code else {
        return "stays active".to_owned();
    };
    let path = format!("/runs/{id}?full=1");
    while harness.server.get(&path).await.0 == 404 {
        assert!(
            since.elapsed() < Duration::from_secs(100),
            "{} is still active",
            case.how
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (_, run) = harness.server.get(&path).await;
    assert_eq!(run["code"], code, "{}: {run}", case.how);
    format!(
        "`{code}` after {:.1} s (run timeout 60 s here)",
        run["duration"].as_f64().unwrap()
    )
}
