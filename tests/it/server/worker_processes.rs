//! The processes of runs, and how the bundled worker itself begins and ends.

use super::worker_fixture::{WorkerFixture, end_of, running, without_namespaces};
use crate::support::{
    process::{PROGRAM, free_port},
    worker_harness::Worker,
};
use std::{
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

fn children(pid: u32) -> Vec<String> {
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        if rest.split(' ').nth(1) == Some(&pid.to_string()) {
            found.push(stat);
        }
    }
    found
}

#[tokio::test]
async fn processes_that_leave_the_group_end_with_the_run() {
    let mut fixture = WorkerFixture::start().await;
    for (number, command) in [
        "setsid sleep N & sleep 0.2",
        "setsid sh -c 'sleep N & sleep 0.1' & sleep 0.3",
        "setsid sh -c '(setsid sh -c \"sleep N & exit\" &) ; exit' & sleep 0.3",
        "env -i setsid sh -c 'sleep N & exit' & sleep 0.3",
        "setsid sh -c 'trap \"\" TERM HUP INT; sleep N; sleep N' & sleep 0.2; exit 3",
    ]
    .iter()
    .enumerate()
    {
        let seconds = (98_100_000 + u64::from(std::process::id()) * 10 + number as u64).to_string();
        let run = fixture.run(&command.replace('N', &seconds)).await;
        assert!(run["code"].is_string());
        let left = running(&seconds);
        assert!(left.is_empty(), "{command}: {left:?}");
    }
}

/// Starts chains of processes, each of which makes the next and exits, for some seconds; they write
/// the time to a file.
const CHAINS: &str = r#"
for i in 1 2 3 4 5 6; do
    python3 -c '
import os, sys, time
os.setsid()
end = time.time() + 12
while time.time() < end:
    with open(sys.argv[1], "w") as file:
        file.write(str(time.time()))
    if os.fork():
        os._exit(0)
' FILE &
done
sleep 0.5
echo two >> file.txt
"#;

/// Runs the chains; returns their run, and whether one goes on after it.
async fn run_of_chains(change: impl FnOnce(&mut Command)) -> (serde_json::Value, bool) {
    let mut fixture = WorkerFixture::start().await;
    let file = fixture.harness.path("alive");
    let script = CHAINS.replace("FILE", &file.display().to_string());
    let run = fixture.run_with(&script, change).await;
    let before = std::fs::read_to_string(&file).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let goes_on = std::fs::read_to_string(&file).unwrap() != before;
    if goes_on {
        tokio::time::sleep(Duration::from_secs(13)).await;
    }
    (run, goes_on)
}

#[tokio::test]
async fn chains_of_processes_end_with_the_run() {
    let (run, goes_on) = run_of_chains(|_| {}).await;
    assert!(!goes_on, "{run}");
    assert_eq!(run["code"], "success", "{run}");
}

#[tokio::test]
async fn run_whose_processes_cannot_be_ended_fails() {
    // A chain may be faster than the worker then.
    let folder = tempfile::tempdir().unwrap();
    let change = |worker: &mut Command| without_namespaces(worker, folder.path());
    let (run, goes_on) = run_of_chains(change).await;
    assert_eq!(run["code"] == "success", !goes_on, "{run}");
    if goes_on {
        assert_eq!(run["code"], "command-failed", "{run}");
        let description = run["description"].as_str().unwrap();
        assert!(description.contains("could not be ended"), "{description}");
    }
}

#[tokio::test]
async fn codemods_of_a_killed_worker_end_with_it() {
    let mut fixture = WorkerFixture::start().await;
    let seconds = (98_400_000 + u64::from(std::process::id())).to_string();
    let script = format!("env -i setsid sleep {seconds} & echo working; sleep {seconds}");
    fixture.queue(&script).await;
    let mut worker = fixture.worker().spawn().unwrap();
    let began = Instant::now();
    while running(&seconds).len() < 2 {
        assert!(began.elapsed() < Duration::from_secs(20), "not started");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker.kill().unwrap();
    worker.wait().unwrap();
    let killed = Instant::now();
    while !running(&seconds).is_empty() {
        let left = running(&seconds);
        assert!(killed.elapsed() < Duration::from_secs(5), "{left:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn process_that_was_there_before_the_worker_is_left_alone() {
    let mut fixture = WorkerFixture::start().await;
    fixture.queue("setsid sleep 1 &").await;
    let inner = fixture.worker();
    let seconds = (98_300_000 + u64::from(std::process::id())).to_string();
    let mut outer = Command::new("sh");
    outer
        .arg("-c")
        .arg(format!("sleep {seconds} & exec \"$@\""))
        .arg("sh")
        .arg(inner.get_program())
        .args(inner.get_args())
        .env("JANITOR_WORKER_PASSWORD", "secret");
    outer.stdout(Stdio::null()).stderr(Stdio::null());
    let ended = end_of(outer).await;
    assert!(ended.status.success());
    let left = running(&seconds);
    for pid in &left {
        Command::new("kill").arg(pid).status().unwrap();
    }
    assert_eq!(left.len(), 1);
}

#[tokio::test]
async fn orphans_are_reaped_while_a_run_is_active() {
    let mut fixture = WorkerFixture::start().await;
    let codebase = fixture
        .queue("for i in 1 2 3 4 5; do setsid sh -c 'sleep 0.1 & exit' & done; wait; sleep 0.5; echo working; sleep 3")
        .await;
    let url = format!("{}/runner", fixture.harness.server.public);
    let mut command = fixture.harness.command("w1", &url);
    let worker = command.arg("--once").spawn().unwrap();
    let pid = worker.id();
    let id = fixture.harness.active_run_of(&codebase).await;
    fixture.harness.wait_for_log(&id, "working\n").await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let zombies = children(pid);
    let output = tokio::task::spawn_blocking(move || worker.wait_with_output().unwrap());
    assert!(output.await.unwrap().status.success());
    let zombies: Vec<_> = zombies
        .iter()
        .filter(|stat| stat.contains(") Z "))
        .collect();
    assert!(zombies.is_empty(), "{zombies:?}");
    assert_eq!(fixture.stored(&codebase).await["code"], "nothing-to-do");
}

#[tokio::test]
async fn worker_works_as_process_one() {
    let mut fixture = WorkerFixture::start().await;
    let codebase = fixture
        .queue("setsid sh -c 'sleep 987 & exit'; sleep 0.2; echo two >> file.txt")
        .await;
    let inner = fixture.worker();
    let mut outer = Command::new("unshare");
    outer
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env("JANITOR_WORKER_PASSWORD", "secret");
    outer.stdout(Stdio::null()).stderr(Stdio::piped());
    let output = end_of(outer).await;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(fixture.stored(&codebase).await["code"], "success");
}

#[tokio::test]
async fn hangup_lets_the_run_finish() {
    let mut fixture = WorkerFixture::start().await;
    let codebase = fixture.queue("echo working; sleep 2").await;
    let url = format!("{}/runner", fixture.harness.server.public);
    let mut worker = Worker::start(&mut fixture.harness.command("w1", &url));
    let id = fixture.harness.active_run_of(&codebase).await;
    fixture.harness.wait_for_log(&id, "working\n").await;
    worker.signal("HUP");
    fixture.harness.wait_for_run(&id, "nothing-to-do").await;
    let began = Instant::now();
    while !worker.has_ended() {
        assert!(began.elapsed() < Duration::from_secs(10), "still running");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Runs a worker for a URL; returns its exit code and what it says.
async fn worker_for(url: &str, work_dir: &Path) -> (Option<i32>, String) {
    let mut worker = Command::new(PROGRAM);
    worker
        .args(["worker", "--url", url, "--work-dir"])
        .arg(work_dir)
        .env("JANITOR_WORKER_PASSWORD", "secret")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = end_of(worker).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), stderr)
}

#[tokio::test]
async fn url_that_cannot_work_ends_the_worker_immediately() {
    let home = tempfile::tempdir().unwrap();
    for url in [
        "htp://localhost:9919/runner",
        "localhost:9919/runner",
        "http://",
        "/runner",
        "",
        "http://host:99999/",
    ] {
        let (code, stderr) = worker_for(url, home.path()).await;
        assert_eq!(code, Some(2), "{url}: {stderr}");
        assert!(stderr.contains("--url"), "{url}: {stderr}");
    }
}

#[tokio::test]
async fn url_of_something_else_ends_the_worker_immediately() {
    let home = tempfile::tempdir().unwrap();
    let page = || async { axum::response::Html("<html>Welcome</html>") };
    let router = axum::Router::new()
        .route("/page/active-runs", axum::routing::any(page))
        .route(
            "/made/active-runs",
            axum::routing::any(|| async { (axum::http::StatusCode::CREATED, "<html>") }),
        );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    for path in ["page", "made", "nothing"] {
        let url = format!("http://user:hunter2@{address}/{path}");
        let (code, stderr) = worker_for(&url, home.path()).await;
        assert_eq!(code, Some(2), "{url}: {stderr}");
        assert!(
            stderr.contains(&format!("{address}/{path}/active-runs")),
            "{stderr}"
        );
        assert!(!stderr.contains("hunter2"), "{stderr}");
    }
}

#[tokio::test]
async fn refused_login_ends_the_worker_with_a_clear_message() {
    let fixture = WorkerFixture::start().await;
    let url = format!("{}/runner", fixture.harness.server.public);
    let (code, stderr) = worker_for(&url, fixture.harness.home.path()).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("password"), "{stderr}");
}

#[tokio::test]
async fn runner_that_does_not_listen_yet_is_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let url = format!("http://127.0.0.1:{}/runner", free_port());
    let mut command = Command::new(PROGRAM);
    command
        .args(["worker", "--url", &url, "--work-dir"])
        .arg(home.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut worker = Worker::start(&mut command);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(!worker.has_ended());
}
