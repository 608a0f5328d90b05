//! Random lives of the bundled worker: odd codemods, killed workers and killed servers. Each result
//! that was sent whole is stored once, with its files.
//!
//! `WORKER_LIVES` is the number of lives, `WORKER_LIVES_SEED` what they are made of.

use super::worker_fixture::WorkerFixture;
use crate::support::{
    random::{Random, number},
    worker_harness::Worker,
};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Leases end soon after their worker, and one artifact of a codemod is too large.
const SETTINGS: &str = "keepalive_interval_seconds = 1\nrun_timeout_minutes = 1\n[watch]\n\
    lease_seconds = 4\nping_after_seconds = 1\nsuspect_after_seconds = 1\n[backchannel]\n\
    timeout_seconds = 1\n[limits]\nupload_file = \"2500 KiB\"\n";

const CHANGES: [&str; 6] = [
    "echo two >> file.txt",
    "echo x > new; git add new; git commit -q -m own",
    "true",
    "mkdir d; echo x > d/\"$(printf 'a\\377\\nb')\"",
    "git rm -q file.txt",
    "ln -s /etc/passwd link; chmod 000 file.txt; echo '*' > .gitignore",
];
const RESULTS: [&str; 12] = [
    "",
    r##"printf '{"description": "# Fix\\u0000"}' > "$SVP_RESULT""##,
    r#"printf '{"description": "", "value": "3.5", "tags": ["a"], "context": {"x": "\\ud800"}}' > "$SVP_RESULT""#,
    r#"printf '{"code": "worker-failure", "stage": ["x"]}' > "$SVP_RESULT""#,
    r#"printf '{"code": "nothing-new-to-do"}' > "$SVP_RESULT""#,
    r#"printf '[1, 2]' > "$SVP_RESULT""#,
    r#"printf '{"value": NaN, "details": "\\377"}' > "$SVP_RESULT""#,
    r#"printf 'nonsense' > "$SVP_RESULT""#,
    r#"mkfifo "$SVP_RESULT""#,
    r#"ln -s /dev/zero "$SVP_RESULT""#,
    r#"{ printf '{"description": "'; head -c 500000 /dev/zero | tr '\0' y; printf '"}'; } > "$SVP_RESULT""#,
    r#"printf '{"transient": 1, "target-branch-url": 5, "tags": 7, "description": [1]}' > "$SVP_RESULT""#,
];
const OUTPUTS: [&str; 12] = [
    "",
    "echo x > \"$OUTPUT_DIRECTORY/plain\"",
    "echo x > \"$OUTPUT_DIRECTORY/worker.log\"; echo y > \"$OUTPUT_DIRECTORY/result.json\"",
    "echo x > \"$OUTPUT_DIRECTORY/$(printf 'b\\\\a\\nc\\351')\"",
    "mkfifo \"$OUTPUT_DIRECTORY/pipe\"; echo x > \"$OUTPUT_DIRECTORY/plain\"",
    "ln -s /etc/passwd \"$OUTPUT_DIRECTORY/link\"",
    "mkdir \"$OUTPUT_DIRECTORY/folder\"",
    "rm -r \"$OUTPUT_DIRECTORY\"",
    "head -c 3000000 /dev/urandom > \"$OUTPUT_DIRECTORY/big\"",
    "for i in $(seq 300); do echo $i > \"$OUTPUT_DIRECTORY/f$i\"; done",
    "head -c 2000000 /dev/urandom; rm -f \"$OUTPUT_DIRECTORY/../logs/worker.log\"",
    "rm -rf .git",
];
/// How a codemod ends. What a worker leaves that is killed itself ends within a minute.
const ENDS: [&str; 8] = [
    "",
    "",
    "exit 1",
    "exit 77",
    "kill -9 $$",
    "sleep 1",
    "setsid sleep 31 & sleep 0.3",
    "(setsid sh -c 'sleep 32; sleep 32' &) ; sleep 0.1",
];
/// What happens to the worker or the server while a life goes on.
const EVENTS: [&str; 8] = [
    "",
    "",
    "",
    "",
    "kill the worker",
    "restart the server",
    "terminate the worker",
    "stop the run",
];
/// The codes with which a worker or the runner may end a run for reasons of its own.
const CODES_OF_KILLED_RUNS: [&str; 3] = ["killed", "worker-timeout", "run-disappeared"];

/// One life: what the codemod does, and what happens meanwhile.
struct Life {
    command: String,
    event: &'static str,
}

impl Life {
    fn random(random: &mut Random) -> Self {
        let parts = [
            random.pick(&CHANGES),
            random.pick(&RESULTS),
            random.pick(&OUTPUTS),
            random.pick(&ENDS),
        ];
        let event = random.pick(&EVENTS);
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let wait = if event.is_empty() { "" } else { "\nsleep 1" };
        Self {
            // Each part on a line of its own, since some end in a comment or an ampersand.
            command: format!("echo working{wait}\n{}", parts.join("\n")),
            event,
        }
    }
}

/// Goes through one life and returns the only run of it.
async fn live(fixture: &mut WorkerFixture, life: &Life) -> Value {
    let codebase = fixture.queue(&life.command).await;
    let url = format!("{}/runner", fixture.harness.server.public);
    let mut command = fixture.harness.command("w1", &url);
    // A run that was ended is queued again, and not for this worker.
    command.args(["--once", "--codebase", &codebase]);
    let mut worker = Worker::start(&mut command);
    if !life.event.is_empty() {
        fixture.harness.active_run_of(&codebase).await;
        tokio::time::sleep(Duration::from_millis(400)).await;
    }
    match life.event {
        "kill the worker" => worker.kill(),
        "terminate the worker" => {
            worker.signal("TERM");
            worker.signal("HUP");
        }
        "restart the server" => {
            fixture.harness.server.kill();
            fixture.harness.server.run().await;
        }
        "stop the run" => {
            let id = fixture.harness.active_run_of(&codebase).await;
            let path = format!("/kill/{id}");
            let _ = fixture.harness.server.post(&path, &Value::Null).await;
        }
        _ => {}
    }
    let started = Instant::now();
    while !worker.has_ended() {
        let elapsed = started.elapsed();
        assert!(elapsed < Duration::from_secs(60), "{:?}", life.command);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let wanted = codebase.clone();
    let is_stored = move |runs: &Value| {
        let mut runs = runs.as_array().into_iter().flatten();
        runs.any(|run| run["codebase"] == wanted.as_str())
    };
    fixture
        .harness
        .server
        .until("/runs?limit=1000", is_stored)
        .await;
    fixture.stored(&codebase).await
}

/// Checks what is stored of a life against what its worker did.
async fn check(fixture: &WorkerFixture, life: &Life, run: &Value) {
    let code = run["code"].as_str().unwrap();
    let context = format!("{:?} ({}): {run}", life.command, life.event);
    let was_ended =
        ["kill the worker", "terminate the worker", "stop the run"].contains(&life.event);
    assert!(!code.starts_with("worker-invalid"), "{context}");
    assert!(
        was_ended || !CODES_OF_KILLED_RUNS.contains(&code),
        "{context}"
    );
    if CODES_OF_KILLED_RUNS.contains(&code) {
        return;
    }
    let log = fixture.log(run).await;
    assert!(
        log.contains("working") && log.contains("result: "),
        "{context}\n{log}"
    );
    let stored = fixture.artifacts(run);
    let listed = run["artifacts"].as_array().into_iter().flatten();
    let listed: Vec<&str> = listed.filter_map(Value::as_str).collect();
    assert!(
        listed
            .iter()
            .all(|name| stored.contains(&(*name).to_owned())),
        "{context}: {stored:?}"
    );
    if run["revision"].is_string() && code == "success" {
        assert!(stored.contains(&"gen.patch".to_owned()), "{context}");
    }
    if code == "success" && life.command.contains("seq 300") {
        assert!(stored.len() >= 300, "{context}");
    }
}

#[tokio::test]
async fn every_life_ends_in_one_stored_run() {
    let (lives, seed) = (
        number("WORKER_LIVES", 60),
        number("WORKER_LIVES_SEED", 20_261),
    );
    let mut fixture = WorkerFixture::with_store("sled", SETTINGS).await;
    let mut random = Random::new(seed);
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..lives {
        let life = Life::random(&mut random);
        let run = live(&mut fixture, &life).await;
        check(&fixture, &life, &run).await;
        *codes
            .entry(run["code"].as_str().unwrap().to_owned())
            .or_default() += 1;
        println!("{number}: {} ({})", run["code"], life.event);
    }
    println!("{codes:?}");
    let (_, workers) = fixture.harness.server.get("/admin/workers").await;
    let paused = workers["workers"]
        .as_array()
        .unwrap()
        .iter()
        .find(|worker| !worker["paused"].is_null());
    assert_eq!(paused, None);
    assert!(codes.len() > 5, "{codes:?}");
}
