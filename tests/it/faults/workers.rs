//! Workers that die, hang, lose their network, or come back; servers that die at every step of a run; Jenkins in every case.
//! Real processes, on sled and on Postgres. Each test notes what became of the run: `make faults` makes the table of it.

use crate::support::{
    fake_backchannel::FakeWorker,
    process::{free_port, send},
    worker_harness::{Worker, WorkerHarness, record_outcome},
};
use serde_json::{Value, json};
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// Runs each test on sled and on Postgres.
macro_rules! for_each_store {
    ($($test:ident),+ $(,)?) => { for_each_store!(@each [sled postgres] $($test),+); };
    (@each [$first:ident $($kind:ident)*] $($test:ident),+) => {
        mod $first {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(stringify!($first)).await;
            })+
        }
        for_each_store!(@each [$($kind)*] $($test),+);
    };
    (@each [] $($test:ident),+) => {};
}

for_each_store!(
    killed_worker_times_out_and_its_item_runs_again,
    late_result_of_a_suspended_worker_is_accepted,
    suspended_worker_stops_if_another_has_its_item,
    late_result_after_a_network_cut_is_accepted,
    run_survives_server_kills_at_every_step,
    kill_request_stops_the_worker,
    ping_responses_decide_runs_without_leases,
);

/// Leases of some seconds, and a look every second.
const SHORT_TIMEOUTS: &str = "keepalive_interval_seconds = 1\nrun_timeout_minutes = 1\n[watch]\nlease_seconds = 4\nping_after_seconds = 1\nsuspect_after_seconds = 1\n[backchannel]\ntimeout_seconds = 1\n";

/// A codemod that says it has begun, and goes on once a file is there; never longer than a minute.
fn codemod_until(harness: &WorkerHarness, flag: &str) -> String {
    let flag = harness.path(flag);
    let flag = flag.display();
    // The log has the command itself too, which must not be taken for what it says.
    format!(
        "echo be''gun; n=0; while [ ! -e {flag} ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done; echo two >> file.txt; echo en''ded"
    )
}

fn set_flag(harness: &WorkerHarness, flag: &str) {
    std::fs::write(harness.path(flag), "").unwrap();
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}

async fn killed_worker_times_out_and_its_item_runs_again(kind: &str) {
    let harness = WorkerHarness::open(kind, SHORT_TIMEOUTS).await;
    harness
        .queue("killed", &codemod_until(&harness, "go"))
        .await;
    // What can be seen of its log is what it sent.
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
                "`worker-timeout` after {after} (lease 4 s), with the log that it had sent; the item is handed out again from its place, and succeeds"
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
    // The item went with it, and the next schedule came.
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
            "it goes on: {}",
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
            "`worker-timeout`; it is told that its result is of no use, stops its codemod and goes on to other work; the other's run: `success`",
        ],
    );
}

/// A network namespace for a worker, with a link to this one.
struct NetworkLink {
    namespace: String,
    host: String,
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip")
        .args(arguments)
        .output()
        .expect("iproute2 is installed");
    assert!(
        output.status.success(),
        "ip {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

impl NetworkLink {
    fn create() -> Self {
        // A free port is a number that no other test has now; a subnet of its own comes of it.
        let port = free_port();
        let (name, net) = (
            format!("jr{port}"),
            format!("10.{}.{}", 64 + port / 256 % 128, port % 256),
        );
        let (inside, host) = (format!("{name}b"), format!("{net}.1"));
        ip(&["netns", "add", &name]);
        let link = Self {
            namespace: name.clone(),
            host: host.clone(),
        };
        ip(&[
            "link",
            "add",
            &format!("{name}a"),
            "type",
            "veth",
            "peer",
            "name",
            &inside,
            "netns",
            &name,
        ]);
        ip(&[
            "address",
            "add",
            &format!("{host}/30"),
            "dev",
            &format!("{name}a"),
        ]);
        ip(&["link", "set", &format!("{name}a"), "up"]);
        ip(&[
            "-n",
            &name,
            "address",
            "add",
            &format!("{net}.2/30"),
            "dev",
            &inside,
        ]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        ip(&["-n", &name, "link", "set", &inside, "up"]);
        link
    }

    /// Cuts it, or mends it.
    fn set(&self, state: &str) {
        ip(&[
            "-n",
            &self.namespace,
            "link",
            "set",
            &format!("{}b", self.namespace),
            state,
        ]);
    }
}

impl Drop for NetworkLink {
    fn drop(&mut self) {
        // The link goes with it.
        drop(
            Command::new("ip")
                .args(["netns", "delete", &self.namespace])
                .status(),
        );
    }
}

async fn late_result_after_a_network_cut_is_accepted(kind: &str) {
    let link = NetworkLink::create();
    let harness = WorkerHarness::open(
        kind,
        &format!("listen_address = \"0.0.0.0\"\n{SHORT_TIMEOUTS}"),
    )
    .await;
    harness.queue("cut", &codemod_until(&harness, "go")).await;
    let port = harness.server.public.rsplit_once(':').unwrap().1.to_owned();
    let _worker = harness.worker_in(
        &link.namespace,
        "w1",
        &format!("http://{}:{port}/runner", link.host),
    );
    let id = harness.active_run_of("cut").await;
    harness.wait_for_log(&id, "begun").await;
    link.set("down");
    let cut = Instant::now();
    harness.wait_for_run(&id, "worker-timeout").await;
    let after = seconds(cut);
    set_flag(&harness, "go");
    tokio::time::sleep(Duration::from_secs(2)).await;
    link.set("up");
    harness.wait_for_run(&id, "success").await;
    assert_eq!(harness.runs("cut").await.len(), 1);
    record_outcome(
        &format!("a4-{kind}"),
        &[
            "network between worker and server",
            "cut (network namespaces), mended once the codemod had ended",
            kind,
            &format!(
                "`worker-timeout` after {after}, then the late result in the place of that: `success`"
            ),
        ],
    );
}

/// Kills the server once `step` is reached, and starts it again.
async fn kill_at(harness: &mut WorkerHarness, step: impl AsyncFn(&WorkerHarness) -> bool) {
    let began = Instant::now();
    while !step(harness).await {
        assert!(began.elapsed() < Duration::from_secs(30), "never got there");
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

#[expect(clippy::too_many_lines)]
async fn run_survives_server_kills_at_every_step(kind: &str) {
    // Starting again takes its time; the lease must outlast that.
    let mut harness = WorkerHarness::open(
        kind,
        &SHORT_TIMEOUTS.replace("lease_seconds = 4", "lease_seconds = 6"),
    )
    .await;
    let _worker = harness.worker("w1", &[]);
    let artifact = "head -c 60000000 /dev/zero > \"$OUTPUT_DIRECTORY/zeros\"; echo two >> file.txt";

    harness.queue("at-claim", "echo two >> file.txt").await;
    kill_at(&mut harness, async |harness| {
        harness.server.get("/active-runs").await.1[0]["codebase"] == "at-claim"
            || !harness.runs("at-claim").await.is_empty()
    })
    .await;
    success(&harness, "at-claim").await;
    record_outcome(
        &format!("b1-{kind}"),
        &[
            "server, at a claim",
            "SIGKILL, started again",
            kind,
            "the worker that has the run goes on; if it never heard of it, the lease runs out and the item is handed out again: `success`",
        ],
    );

    harness
        .queue("at-keepalive", &codemod_until(&harness, "go"))
        .await;
    let id = harness.active_run_of("at-keepalive").await;
    harness.wait_for_log(&id, "begun").await;
    kill_at(&mut harness, async |_| true).await;
    set_flag(&harness, "go");
    harness.wait_for_run(&id, "success").await;
    assert_eq!(harness.runs("at-keepalive").await.len(), 1);
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
    record_outcome(
        &format!("b2-{kind}"),
        &[
            "server, between keepalives",
            "SIGKILL, started again",
            kind,
            "the lease is kept, the log goes on where it was: `success`, the same run",
        ],
    );

    harness.queue("at-upload", artifact).await;
    let spool = harness.path("spool");
    kill_at(&mut harness, async |_| has_files(&spool)).await;
    let id = success(&harness, "at-upload").await;
    assert_eq!(
        std::fs::metadata(harness.path("artifacts").join(&id).join("zeros"))
            .unwrap()
            .len(),
        60_000_000
    );
    record_outcome(
        &format!("b3-{kind}"),
        &[
            "server, in the middle of an upload (60 MB)",
            "SIGKILL, started again",
            kind,
            "the worker uploads again: `success`, the same run, the artifact whole",
        ],
    );

    harness.queue("at-store", artifact).await;
    let id = harness.active_run_of("at-store").await;
    let stored = harness.path("artifacts").join(&id);
    kill_at(&mut harness, async |_| has_files(&stored)).await;
    assert_eq!(success(&harness, "at-store").await, id);
    assert_eq!(
        std::fs::metadata(stored.join("zeros")).unwrap().len(),
        60_000_000
    );
    record_outcome(
        &format!("b4-{kind}"),
        &[
            "server, with artifacts stored and the run not",
            "SIGKILL, started again",
            kind,
            "the worker uploads again: `success`, the same run, stored once",
        ],
    );

    harness.queue("at-follow-up", "echo two >> file.txt").await;
    kill_at(&mut harness, async |harness| {
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
    record_outcome(
        &format!("b5-{kind}"),
        &[
            "server, with the run stored and its follow-up not",
            "SIGKILL, started again",
            kind,
            "the follow-up is carried out: the item is queued again",
        ],
    );
}

/// The one run of a codebase that succeeded first, once it has.
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

async fn kill_request_stops_the_worker(kind: &str) {
    let harness = WorkerHarness::open(kind, SHORT_TIMEOUTS).await;
    for (number, (extra, how)) in [
        (vec![], "by the backchannel"),
        (
            vec!["--backchannel-url", "http://127.0.0.1:1/"],
            "with its next sign of life, the backchannel being out of reach",
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
        let told = Instant::now();
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
                &format!("the worker is told {how}; `killed` {} later", seconds(told)),
            ],
        );
    }
}

/// What a worker without a lease, or a Jenkins, responses; and what expected_code of its run.
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

/// A run of one case that is watched.
struct WatchedRun {
    case: &'static PingCase,
    id: String,
    since: Instant,
    _play: FakeWorker,
}

async fn ping_responses_decide_runs_without_leases(store: &str) {
    // The look every second, but a ping sooner than a run times out.
    let harness = WorkerHarness::open(store, SHORT_TIMEOUTS).await;
    let mut watched = vec![];
    for (number, case) in PING_CASES.iter().enumerate() {
        let (codebase, fake) = (format!("case-{number}"), FakeWorker::start().await);
        harness.queue(&codebase, "true").await;
        let body = json!({ "worker": "w1", "codebase": codebase, "backchannel": { "kind": case.kind, "url": fake.url() } });
        let id = harness.server.post("/active-runs", &body).await.1["id"]
            .as_str()
            .unwrap()
            .to_owned();
        (case.set)(&fake, &id);
        watched.push(WatchedRun {
            case,
            id,
            since: Instant::now(),
            _play: fake,
        });
    }
    // Nobody listens where this one was.
    let refused = json!({ "kind": "http", "url": format!("http://127.0.0.1:{}/", free_port()) });
    harness.queue("refused", "true").await;
    let dead = harness
        .server
        .post(
            "/active-runs",
            &json!({ "worker": "w1", "codebase": "refused", "backchannel": refused }),
        )
        .await
        .1["id"]
        .clone();
    let died = Instant::now();
    harness
        .wait_for_run(dead.as_str().unwrap(), "run-disappeared")
        .await;
    record_outcome(
        &format!("d0-{store}"),
        &[
            "worker without a lease (http)",
            "nobody listens any more",
            store,
            &format!(
                "`run-disappeared` after {}, three refusals (1 s apart here, 60 s and twice 30 s by default)",
                seconds(died)
            ),
        ],
    );
    for (number, watched) in watched.iter().enumerate() {
        let WatchedRun {
            case, id, since, ..
        } = watched;
        let outcome = match case.expected_code {
            Some(code) => {
                let path = format!("/runs/{id}?full=1");
                while harness.server.get(&path).await.0 == 404 {
                    assert!(
                        since.elapsed() < Duration::from_secs(100),
                        "{} is still active",
                        case.how
                    );
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                let run = harness.server.get(&path).await.1;
                assert_eq!(run["code"], code, "{}: {run}", case.how);
                format!(
                    "`{code}` after {:.1} s (run timeout 60 s here)",
                    run["duration"].as_f64().unwrap()
                )
            }
            None => "stays active".to_owned(),
        };
        let name = if case.kind == "http" {
            "worker without a lease (http)"
        } else {
            "Jenkins"
        };
        record_outcome(
            &format!("d{:02}-{store}", number + 1),
            &[name, case.how, store, &outcome],
        );
    }
    let still: Vec<Value> = harness
        .server
        .get("/active-runs")
        .await
        .1
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["id"].clone())
        .collect();
    let expected: Vec<Value> = watched
        .iter()
        .filter(|watched| watched.case.expected_code.is_none())
        .map(|watched| json!(watched.id))
        .collect();
    assert_eq!(still, expected);
}
