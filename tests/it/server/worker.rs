//! The bundled worker against a real server and real repositories.

use super::worker_fixture::running;
use crate::support::{
    process::{PROGRAM, Server},
    worker_harness::{self, Worker, git},
};
use serde_json::{Value, json};
use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

struct WorkerFixture {
    home: TempDir,
    server: Server,
    repository: PathBuf,
}

impl WorkerFixture {
    /// A server with one codebase and a candidate that runs `command` on it.
    async fn start(command: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let repository = home.path().join("repository");
        worker_harness::repository(&repository);
        let server = Server::start(home.path(), "memory:", "").await;
        server.add_worker("w1", "secret1").await;
        let uploaded = server
            .post(
                "/codebases",
                &json!([{ "name": "repo", "url": format!("file://{}", repository.display()) }]),
            )
            .await;
        assert_eq!(uploaded.0, 200);
        let fixture = Self {
            home,
            server,
            repository,
        };
        fixture.queue(command).await;
        fixture
    }

    async fn queue(&self, command: &str) {
        let stored = self
            .server
            .post(
                "/candidates",
                &json!([{ "codebase": "repo", "campaign": "gen", "command": command }]),
            )
            .await;
        assert_eq!(
            stored.1["success"].as_array().map(Vec::len),
            Some(1),
            "{stored:?}"
        );
    }

    fn worker(&self, extra: &[&str]) -> Command {
        let mut worker = Command::new(PROGRAM);
        worker
            .args([
                "worker",
                "--name",
                "w1",
                "--idle",
                "1",
                "--url",
                &format!("{}/runner", self.server.public),
            ])
            .args(extra);
        worker
            .arg("--work-dir")
            .arg(self.work_dir())
            .env("JANITOR_WORKER_PASSWORD", "secret1")
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        worker
    }

    fn work_dir(&self) -> PathBuf {
        self.home.path().join("work")
    }

    /// Runs one worker to its end and returns the run that it finished.
    async fn run(&self, extra: &[&str]) -> Value {
        let mut worker = self.worker(&[&["--once"], extra].concat());
        let ended = tokio::task::spawn_blocking(move || worker.status().unwrap())
            .await
            .unwrap();
        assert!(ended.success());
        self.has_no_folder_left();
        let (_, runs) = self.server.get("/runs?limit=1").await;
        runs[0].clone()
    }

    /// A worker whose run has begun, its id, and the address of its backchannel.
    async fn working(&self) -> (Worker, String, String) {
        let worker = Worker::start(&mut self.worker(&[]));
        let active = self
            .server
            .until("/active-runs", |runs| {
                runs[0]["backchannel"]["my_url"].is_string()
            })
            .await;
        let id = active[0]["id"].as_str().unwrap().to_owned();
        self.server
            .until(&format!("/log/{id}/worker.log"), |log| {
                log.as_str().is_some_and(|log| log.contains("working\n"))
            })
            .await;
        (
            worker,
            id,
            active[0]["backchannel"]["my_url"]
                .as_str()
                .unwrap()
                .to_owned(),
        )
    }

    /// Waits until the codemod runs, by the log that the worker's own backchannel serves; returns the address of that.
    async fn backchannel_of_working_worker(&self, http: &reqwest::Client) -> String {
        for _ in 0..200 {
            let (_, active) = self.server.get("/active-runs").await;
            if let Some(url) = active[0]["backchannel"]["my_url"].as_str() {
                let log = http.get(format!("{url}logs/worker.log")).send().await;
                let log = log.unwrap().text().await.unwrap_or_default();
                if log.contains("working\n") {
                    return url.to_owned();
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the codemod does not run");
    }

    fn has_no_folder_left(&self) {
        assert_eq!(
            std::fs::read_dir(self.work_dir()).unwrap().count(),
            0,
            "a folder is left"
        );
    }

    /// Waits until a worker exits and returns how long that took. It must leave no folder.
    async fn end_of(&self, worker: &mut Worker) -> Duration {
        let began = Instant::now();
        while !worker.has_ended() {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "it is still running"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let took = began.elapsed();
        self.has_no_folder_left();
        took
    }

    async fn log(&self, run: &Value) -> String {
        let (_, log) = self
            .server
            .get(&format!(
                "/log/{}/worker.log",
                run["log_id"].as_str().unwrap()
            ))
            .await;
        log.as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn change_is_committed_and_uploaded() {
    let script = r#"echo two >> file.txt; echo "says $SVP_API"; echo extra > "$OUTPUT_DIRECTORY/extra.bin"; echo '{"description": "Add two", "value": 7, "context": {"a": 1}}' > "$SVP_RESULT""#;
    let fixture = WorkerFixture::start(script).await;
    let run = fixture.run(&[]).await;
    // There is no store of branches here, so the push fails. The change is kept as a patch all the same.
    assert_eq!(run["code"], json!("push-failed"), "{run}");
    assert_eq!(run["failure_stage"], json!("deliver/push"), "{run}");
    assert_eq!(run["transient"], json!(true), "{run}");
    assert!(fixture.log(&run).await.contains("says 1"));
}

#[tokio::test]
async fn outcomes_of_codemods_have_distinct_codes() {
    let fixture = WorkerFixture::start("true").await;
    assert_eq!(fixture.run(&[]).await["code"], "nothing-to-do");
    fixture.queue("echo oops >&2; exit 3").await;
    let failed = fixture.run(&[]).await;
    assert_eq!(failed["code"], json!("command-failed"));
    assert_eq!(failed["failure_stage"], json!("codemod"));
    assert!(fixture.log(&failed).await.contains("oops"));
    fixture.queue(r#"echo '{"code": "odd", "description": "because", "transient": true}' > "$SVP_RESULT"; exit 1"#).await;
    let own = fixture.run(&[]).await;
    assert_eq!(own["code"], json!("odd"));
    assert_eq!(own["description"], json!("because"));
    assert_eq!(own["transient"], json!(true));
    fixture.queue("echo nonsense > \"$SVP_RESULT\"").await;
    assert_eq!(fixture.run(&[]).await["code"], "codemod-result-invalid");
}

#[tokio::test]
async fn codemod_timeout_kills_all_children() {
    let fixture = WorkerFixture::start("sleep 987654 & wait").await;
    let run = fixture.run(&["--timeout", "1"]).await;
    assert_eq!(run["code"], "timeout");
    assert!(running("987654").is_empty(), "a child is left");
}

#[tokio::test]
async fn backchannel_serves_the_log_and_kills_the_run() {
    let fixture = WorkerFixture::start("echo working; sleep 987655").await;
    let mut worker = fixture.worker(&["--once"]).spawn().unwrap();
    let http = crate::support::process::client();
    let url = fixture.backchannel_of_working_worker(&http).await;
    let (_, active) = fixture.server.get("/active-runs").await;
    let id = http
        .get(format!("{url}log-id"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(active[0]["id"], id);
    // Nobody else knows the path, though others can reach the address.
    let address = reqwest::Url::parse(&url).unwrap();
    for path in ["/kill", "/log-id", "/logs", "/", "/x/kill"] {
        let other = address.join(path).unwrap();
        let get = http.get(other.clone()).send().await.unwrap();
        let post = http.post(other).send().await.unwrap();
        assert_eq!(get.status(), 404, "{path}");
        assert_eq!(post.status(), 404, "{path}");
    }
    let logs: Vec<String> = http
        .get(format!("{url}logs"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(logs, ["worker.log"]);
    assert_eq!(
        http.get(format!("{url}logs/..%2Fx"))
            .send()
            .await
            .unwrap()
            .status(),
        400
    );
    assert!(
        http.post(format!("{url}kill"))
            .send()
            .await
            .unwrap()
            .status()
            .is_success()
    );
    assert!(
        tokio::task::spawn_blocking(move || worker.wait().unwrap())
            .await
            .unwrap()
            .success()
    );
    let (_, runs) = fixture.server.get("/runs?limit=1").await;
    assert_eq!(runs[0]["code"], json!("killed"));
    assert_eq!(runs[0]["transient"], json!(true));
}

#[tokio::test]
async fn first_signal_lets_the_run_finish() {
    let fixture = WorkerFixture::start("echo working; sleep 3").await;
    let (mut worker, id, url) = fixture.working().await;
    worker.signal("TERM");
    tokio::time::sleep(Duration::from_millis(200)).await;
    // Its backchannel responds until the run has ended.
    let run_id = crate::support::process::client()
        .get(format!("{url}log-id"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(run_id, id);
    fixture.end_of(&mut worker).await;
    let (_, runs) = fixture.server.get("/runs").await;
    assert_eq!(runs.as_array().unwrap().len(), 1);
    assert_eq!(runs[0]["log_id"], json!(id));
    assert_eq!(runs[0]["code"], json!("nothing-to-do"));
}

#[tokio::test]
async fn second_signal_kills_the_run() {
    let fixture = WorkerFixture::start("sleep 987657 & echo working; wait").await;
    let (mut worker, id, _) = fixture.working().await;
    worker.signal("INT");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!worker.has_ended());
    worker.signal("INT");
    let took = fixture.end_of(&mut worker).await;
    assert!(took < Duration::from_secs(10), "{took:?}");
    let (_, run) = fixture.server.get(&format!("/runs/{id}?full=1")).await;
    assert_eq!(run["code"], json!("killed"));
    assert_eq!(run["transient"], json!(true));
    assert!(running("987657").is_empty(), "a child is left");
}

#[tokio::test]
async fn second_signal_stops_retrying_a_lost_runner() {
    let mut fixture = WorkerFixture::start("echo working; sleep 1; echo two >> file.txt").await;
    let (mut worker, ..) = fixture.working().await;
    fixture.server.kill();
    worker.signal("TERM");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!worker.has_ended(), "it dropped its result immediately");
    worker.signal("TERM");
    let took = fixture.end_of(&mut worker).await;
    assert!(took < Duration::from_secs(15), "{took:?}");
}

#[tokio::test]
async fn source_repository_is_unchanged() {
    let fixture = WorkerFixture::start("echo two >> file.txt").await;
    let before = git(&fixture.repository, &["rev-parse", "HEAD"]);
    fixture.run(&[]).await;
    assert_eq!(git(&fixture.repository, &["rev-parse", "HEAD"]), before);
    assert_eq!(git(&fixture.repository, &["status", "--porcelain"]), "");
}

#[tokio::test]
async fn wrong_password_ends_the_worker_with_a_message() {
    let fixture = WorkerFixture::start("true").await;
    let mut worker = fixture.worker(&["--once"]);
    worker
        .env("JANITOR_WORKER_PASSWORD", "wrong")
        .stderr(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || worker.output().unwrap())
        .await
        .unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{stderr}");
    assert!(stderr.contains("401"), "{stderr}");
}
