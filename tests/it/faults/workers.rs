//! Workers that die, hang, lose their network, or come back; servers that die at every step of a run; Jenkins in every mood.
//! Real processes, on sled and on Postgres. Each test notes what became of the run: `make faults` makes the table of it.

use crate::support::{
    fake_backchannel::FakeWorker,
    process::{answer, free_port},
    worker_harness::{Worker, WorkerHarness, row},
};
use serde_json::{Value, json};
use std::{
    process::Command,
    time::{Duration, Instant},
};

/// Runs each test on sled and on Postgres.
macro_rules! on_both {
    ($($test:ident),+ $(,)?) => { on_both!(@each [sled postgres] $($test),+); };
    (@each [$first:ident $($kind:ident)*] $($test:ident),+) => {
        mod $first {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(stringify!($first)).await;
            })+
        }
        on_both!(@each [$($kind)*] $($test),+);
    };
    (@each [] $($test:ident),+) => {};
}

on_both!(
    a_worker_is_killed,
    a_worker_is_stopped_and_its_result_comes_late,
    a_worker_is_stopped_and_another_takes_its_item,
    the_network_between_is_cut,
    the_server_is_killed_at_every_step,
    a_run_is_killed,
    workers_without_leases_answer_as_they_please,
);

/// Leases of some seconds, and a look every second.
const QUICK: &str = "keepalive_interval_seconds = 1\nrun_timeout_minutes = 1\n[watch]\nlease_seconds = 4\nping_after_seconds = 1\nsuspect_after_seconds = 1\n[backchannel]\ntimeout_seconds = 1\n";

/// A codemod that says it has begun, and goes on once a file is there; never longer than a minute.
fn until(yard: &WorkerHarness, flag: &str) -> String {
    let flag = yard.path(flag);
    let flag = flag.display();
    // The log has the command itself too, which must not be taken for what it says.
    format!(
        "echo be''gun; n=0; while [ ! -e {flag} ] && [ $n -lt 600 ]; do sleep 0.1; n=$((n + 1)); done; echo two >> file.txt; echo en''ded"
    )
}

fn raise(yard: &WorkerHarness, flag: &str) {
    std::fs::write(yard.path(flag), "").unwrap();
}

fn seconds(since: Instant) -> String {
    format!("{:.1} s", since.elapsed().as_secs_f64())
}

async fn a_worker_is_killed(kind: &str) {
    let yard = WorkerHarness::open(kind, QUICK).await;
    yard.queue("killed", &until(&yard, "go")).await;
    // What can be seen of its log is what it sent.
    let mut first = yard.worker("w1", &["--backchannel-url", "http://127.0.0.1:1/"]);
    let id = yard.active("killed").await;
    yard.says(&id, "begun").await;
    let died = Instant::now();
    first.kill();
    let ended = yard.ended(&id, "worker-timeout").await;
    let after = seconds(died);
    assert_eq!(ended["transient"], json!(true));
    assert_eq!(ended["logfilenames"], json!(["worker.log"]));
    assert!(
        yard.server
            .get(&format!("/log/{id}/worker.log"))
            .await
            .1
            .as_str()
            .unwrap()
            .contains("begun")
    );
    raise(&yard, "go");
    let _second = yard.worker("w2", &[]);
    let runs = yard
        .server
        .until("/runs?limit=9", |runs| {
            runs.as_array().is_some_and(|runs| runs.len() == 2)
        })
        .await;
    assert_eq!(runs[0]["code"], json!("success"));
    assert_eq!(runs[0]["codebase"], json!("killed"));
    row(
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

async fn a_worker_is_stopped_and_its_result_comes_late(kind: &str) {
    let yard = WorkerHarness::open(kind, QUICK).await;
    yard.queue("stopped", &until(&yard, "go")).await;
    let worker = yard.worker("w1", &["--once"]);
    let id = yard.active("stopped").await;
    yard.says(&id, "begun").await;
    worker.signal("STOP");
    yard.ended(&id, "worker-timeout").await;
    raise(&yard, "go");
    worker.signal("CONT");
    let late = yard.ended(&id, "success").await;
    assert!(late["revision"].is_string());
    assert_eq!(yard.runs("stopped").await.len(), 1);
    assert!(
        yard.server
            .get(&format!("/log/{id}/worker.log"))
            .await
            .1
            .as_str()
            .unwrap()
            .contains("ended")
    );
    // The item went with it, and the next schedule came.
    yard.server
        .until("/queue", |queue| {
            queue
                .as_array()
                .is_some_and(|queue| queue.len() == 1 && queue[0]["queue_id"] != late["queue_id"])
        })
        .await;
    row(
        &format!("a2-{kind}"),
        &[
            "worker with a lease",
            "SIGSTOP until its lease is over, then SIGCONT",
            kind,
            "`worker-timeout`, then its late result in the place of that: `success`; the item is not run again",
        ],
    );
}

async fn a_worker_is_stopped_and_another_takes_its_item(kind: &str) {
    let yard = WorkerHarness::open(kind, QUICK).await;
    yard.queue("taken", &until(&yard, "go")).await;
    let mut first = yard.worker("w1", &["--once"]);
    let id = yard.active("taken").await;
    yard.says(&id, "begun").await;
    first.signal("STOP");
    yard.ended(&id, "worker-timeout").await;
    let _second = yard.worker("w2", &["--once"]);
    let second = yard.active("taken").await;
    first.signal("CONT");
    let began = Instant::now();
    while !first.has_ended() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "it goes on: {}",
            std::fs::read_to_string(yard.path("w1.log")).unwrap()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    raise(&yard, "go");
    yard.ended(&second, "success").await;
    let mut runs = yard.runs("taken").await;
    runs.sort_by_key(|(_, code)| code.clone());
    assert_eq!(
        runs,
        [
            (second, "success".to_owned()),
            (id, "worker-timeout".to_owned())
        ]
    );
    row(
        &format!("a3-{kind}"),
        &[
            "worker with a lease",
            "SIGSTOP until another worker has its item, then SIGCONT",
            kind,
            "`worker-timeout`; it is told that its result is of no use, stops its codemod and goes on to other work; the other's run: `success`",
        ],
    );
}

/// A network namespace for a worker, with a wire to this one.
struct Wire {
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

impl Wire {
    fn lay() -> Self {
        // A free port is a number that no other test has now; a subnet of its own comes of it.
        let port = free_port();
        let (name, net) = (
            format!("jr{port}"),
            format!("10.{}.{}", 64 + port / 256 % 128, port % 256),
        );
        let (inside, host) = (format!("{name}b"), format!("{net}.1"));
        ip(&["netns", "add", &name]);
        let wire = Self {
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
        wire
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

impl Drop for Wire {
    fn drop(&mut self) {
        // The wire goes with it.
        drop(
            Command::new("ip")
                .args(["netns", "delete", &self.namespace])
                .status(),
        );
    }
}

async fn the_network_between_is_cut(kind: &str) {
    let wire = Wire::lay();
    let yard = WorkerHarness::open(kind, &format!("listen_address = \"0.0.0.0\"\n{QUICK}")).await;
    yard.queue("cut", &until(&yard, "go")).await;
    let port = yard.server.public.rsplit_once(':').unwrap().1.to_owned();
    let _worker = yard.worker_in(
        &wire.namespace,
        "w1",
        &format!("http://{}:{port}/runner", wire.host),
    );
    let id = yard.active("cut").await;
    yard.says(&id, "begun").await;
    wire.set("down");
    let cut = Instant::now();
    yard.ended(&id, "worker-timeout").await;
    let after = seconds(cut);
    raise(&yard, "go");
    tokio::time::sleep(Duration::from_secs(2)).await;
    wire.set("up");
    yard.ended(&id, "success").await;
    assert_eq!(yard.runs("cut").await.len(), 1);
    row(
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
async fn kill_at(yard: &mut WorkerHarness, step: impl AsyncFn(&WorkerHarness) -> bool) {
    let began = Instant::now();
    while !step(yard).await {
        assert!(began.elapsed() < Duration::from_secs(30), "never got there");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    yard.server.kill();
    tokio::time::sleep(Duration::from_millis(300)).await;
    yard.server.run().await;
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
async fn the_server_is_killed_at_every_step(kind: &str) {
    // Starting again takes its time; the lease must outlast that.
    let mut yard = WorkerHarness::open(
        kind,
        &QUICK.replace("lease_seconds = 4", "lease_seconds = 6"),
    )
    .await;
    let _worker = yard.worker("w1", &[]);
    let artifact = "head -c 60000000 /dev/zero > \"$OUTPUT_DIRECTORY/zeros\"; echo two >> file.txt";

    yard.queue("at-claim", "echo two >> file.txt").await;
    kill_at(&mut yard, async |yard| {
        yard.server.get("/active-runs").await.1[0]["codebase"] == "at-claim"
            || !yard.runs("at-claim").await.is_empty()
    })
    .await;
    success(&yard, "at-claim").await;
    row(
        &format!("b1-{kind}"),
        &[
            "server, at a claim",
            "SIGKILL, started again",
            kind,
            "the worker that has the run goes on; if it never heard of it, the lease runs out and the item is handed out again: `success`",
        ],
    );

    yard.queue("at-keepalive", &until(&yard, "go")).await;
    let id = yard.active("at-keepalive").await;
    yard.says(&id, "begun").await;
    kill_at(&mut yard, async |_| true).await;
    raise(&yard, "go");
    yard.ended(&id, "success").await;
    assert_eq!(yard.runs("at-keepalive").await.len(), 1);
    assert!(
        yard.server
            .get(&format!("/log/{id}/worker.log"))
            .await
            .1
            .as_str()
            .unwrap()
            .contains("ended")
    );
    row(
        &format!("b2-{kind}"),
        &[
            "server, between keepalives",
            "SIGKILL, started again",
            kind,
            "the lease is kept, the log goes on where it was: `success`, the same run",
        ],
    );

    yard.queue("at-upload", artifact).await;
    let spool = yard.path("spool");
    kill_at(&mut yard, async |_| has_files(&spool)).await;
    let id = success(&yard, "at-upload").await;
    assert_eq!(
        std::fs::metadata(yard.path("artifacts").join(&id).join("zeros"))
            .unwrap()
            .len(),
        60_000_000
    );
    row(
        &format!("b3-{kind}"),
        &[
            "server, in the middle of an upload (60 MB)",
            "SIGKILL, started again",
            kind,
            "the worker uploads again: `success`, the same run, the artifact whole",
        ],
    );

    yard.queue("at-store", artifact).await;
    let id = yard.active("at-store").await;
    let stored = yard.path("artifacts").join(&id);
    kill_at(&mut yard, async |_| has_files(&stored)).await;
    assert_eq!(success(&yard, "at-store").await, id);
    assert_eq!(
        std::fs::metadata(stored.join("zeros")).unwrap().len(),
        60_000_000
    );
    row(
        &format!("b4-{kind}"),
        &[
            "server, with artifacts stored and the run not",
            "SIGKILL, started again",
            kind,
            "the worker uploads again: `success`, the same run, stored once",
        ],
    );

    yard.queue("at-follow-up", "echo two >> file.txt").await;
    kill_at(&mut yard, async |yard| {
        yard.runs("at-follow-up")
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
    yard.server.until("/queue", queued).await;
    row(
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
async fn success(yard: &WorkerHarness, codebase: &str) -> String {
    let began = Instant::now();
    loop {
        let runs = yard.runs(codebase).await;
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

async fn a_run_is_killed(kind: &str) {
    let yard = WorkerHarness::open(kind, QUICK).await;
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
        yard.queue(&codebase, &until(&yard, "never")).await;
        let _worker: Worker = yard.worker(
            "w1",
            &[&["--once", "--codebase", &codebase], extra.as_slice()].concat(),
        );
        let id = yard.active(&codebase).await;
        yard.says(&id, "begun").await;
        let told = Instant::now();
        assert_eq!(
            answer(yard.server.request("POST", &format!("/kill/{id}")))
                .await
                .0,
            200,
            "{how}"
        );
        assert!(
            yard.server.get(&format!("/active-runs/{id}")).await.1["cancel"].is_string()
                || yard.server.get(&format!("/runs/{id}")).await.0 == 200
        );
        yard.ended(&id, "killed").await;
        row(
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

/// What a worker without a lease, or a Jenkins, answers; and what becomes of its run.
struct Mood {
    kind: &'static str,
    how: &'static str,
    set: fn(&FakeWorker, &str),
    becomes: Option<&'static str>,
}

const MOODS: &[Mood] = &[
    Mood {
        kind: "http",
        how: "is on the run",
        set: |play, id| play.answer("/log-id", 200, id),
        becomes: None,
    },
    Mood {
        kind: "http",
        how: "is on another run",
        set: |play, _| play.answer("/log-id", 200, "another"),
        becomes: Some("run-disappeared"),
    },
    Mood {
        kind: "http",
        how: "is idle (`null`)",
        set: |play, _| play.answer("/log-id", 200, "null"),
        becomes: Some("run-disappeared"),
    },
    Mood {
        kind: "http",
        how: "answers 500",
        set: |play, _| play.answer("/log-id", 500, ""),
        becomes: Some("worker-timeout"),
    },
    Mood {
        kind: "http",
        how: "answers never",
        set: |play, _| play.hang("/log-id"),
        becomes: Some("worker-timeout"),
    },
    Mood {
        kind: "http",
        how: "drips bytes",
        set: |play, _| play.drip("/log-id"),
        becomes: Some("worker-timeout"),
    },
    Mood {
        kind: "jenkins",
        how: "200, the job goes on",
        set: |play, _| play.answer("/api/json", 200, r#"{"building": true}"#),
        becomes: None,
    },
    Mood {
        kind: "jenkins",
        how: "404",
        set: |_, _| {},
        becomes: Some("run-disappeared"),
    },
    Mood {
        kind: "jenkins",
        how: "200, the job is a FAILURE",
        set: |play, _| play.answer("/api/json", 200, r#"{"result": "FAILURE"}"#),
        becomes: Some("run-disappeared"),
    },
    Mood {
        kind: "jenkins",
        how: "500",
        set: |play, _| play.answer("/api/json", 500, "{}"),
        becomes: Some("worker-timeout"),
    },
    Mood {
        kind: "jenkins",
        how: "garbage",
        set: |play, _| play.answer("/api/json", 200, "<html>"),
        becomes: Some("worker-timeout"),
    },
    Mood {
        kind: "jenkins",
        how: "never",
        set: |play, _| play.hang("/api/json"),
        becomes: Some("worker-timeout"),
    },
];

/// A run of one mood that is watched.
struct Asked {
    mood: &'static Mood,
    id: String,
    since: Instant,
    _play: FakeWorker,
}

async fn workers_without_leases_answer_as_they_please(store: &str) {
    // The look every second, but a ping sooner than a run times out.
    let yard = WorkerHarness::open(store, QUICK).await;
    let mut asked = vec![];
    for (number, mood) in MOODS.iter().enumerate() {
        let (codebase, play) = (format!("mood-{number}"), FakeWorker::start().await);
        yard.queue(&codebase, "true").await;
        let body = json!({ "worker": "w1", "codebase": codebase, "backchannel": { "kind": mood.kind, "url": play.url() } });
        let id = yard.server.post("/active-runs", &body).await.1["id"]
            .as_str()
            .unwrap()
            .to_owned();
        (mood.set)(&play, &id);
        asked.push(Asked {
            mood,
            id,
            since: Instant::now(),
            _play: play,
        });
    }
    // Nobody listens where this one was.
    let refused = json!({ "kind": "http", "url": format!("http://127.0.0.1:{}/", free_port()) });
    yard.queue("refused", "true").await;
    let dead = yard
        .server
        .post(
            "/active-runs",
            &json!({ "worker": "w1", "codebase": "refused", "backchannel": refused }),
        )
        .await
        .1["id"]
        .clone();
    let died = Instant::now();
    yard.ended(dead.as_str().unwrap(), "run-disappeared").await;
    row(
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
    for (number, asked) in asked.iter().enumerate() {
        let Asked {
            mood, id, since, ..
        } = asked;
        let outcome = match mood.becomes {
            Some(code) => {
                let path = format!("/runs/{id}?full=1");
                while yard.server.get(&path).await.0 == 404 {
                    assert!(
                        since.elapsed() < Duration::from_secs(100),
                        "{} is still active",
                        mood.how
                    );
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                let run = yard.server.get(&path).await.1;
                assert_eq!(run["code"], code, "{}: {run}", mood.how);
                format!(
                    "`{code}` after {:.1} s (run timeout 60 s here)",
                    run["duration"].as_f64().unwrap()
                )
            }
            None => "stays active".to_owned(),
        };
        let name = if mood.kind == "http" {
            "worker without a lease (http)"
        } else {
            "Jenkins"
        };
        row(
            &format!("d{:02}-{store}", number + 1),
            &[name, mood.how, store, &outcome],
        );
    }
    let still: Vec<Value> = yard
        .server
        .get("/active-runs")
        .await
        .1
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["id"].clone())
        .collect();
    let expected: Vec<Value> = asked
        .iter()
        .filter(|asked| asked.mood.becomes.is_none())
        .map(|asked| json!(asked.id))
        .collect();
    assert_eq!(still, expected);
}
