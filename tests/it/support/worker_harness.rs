//! A server with a real repository, and bundled workers for it.

use super::{
    process::{PROGRAM, Server},
    servers,
};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let identity = ["-c", "user.name=T", "-c", "user.email=t@localhost"];
    let output = Command::new("git")
        .args(identity)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "git {arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Creates a repository with one file.
pub fn repository(at: &Path) {
    std::fs::create_dir(at).unwrap();
    std::fs::write(at.join("file.txt"), "one\n").unwrap();
    git(at, &["init", "--quiet", "--initial-branch=main"]);
    git(at, &["add", "--all"]);
    git(at, &["commit", "--quiet", "--message", "Start"]);
}

pub struct WorkerHarness {
    pub home: TempDir,
    pub server: Server,
}

/// The process of a worker, which is killed when this is dropped.
pub struct Worker(Child);

impl Worker {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }

    pub fn signal(&self, signal: &str) {
        assert!(
            Command::new("kill")
                .args([&format!("-{signal}"), &self.0.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
    }

    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A new store of that kind, as in the settings, for a server at `home`.
pub async fn store(kind: &str, home: &Path) -> String {
    match kind {
        "sled" => format!("sled:{}", home.join("db").display()),
        "postgres" => servers::database().await,
        other => other.to_owned(),
    }
}

impl WorkerHarness {
    /// Starts a server on a store of that kind; `settings` add to its own.
    pub async fn open(kind: &str, settings: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        repository(&home.path().join("repository"));
        std::fs::create_dir_all(home.path().join("vcs/git")).unwrap();
        let settings = format!(
            "public_vcs_location = \"file://{}\"\n{settings}",
            home.path().join("vcs").display()
        );
        let server = Server::start(home.path(), &store(kind, home.path()).await, &settings).await;
        for worker in ["w1", "w2"] {
            server.add_worker(worker, "secret").await;
        }
        Self { home, server }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// Adds a codebase of the repository with a candidate that runs a command on it.
    pub async fn queue(&self, codebase: &str, command: &str) {
        let url = format!("file://{}", self.path("repository").display());
        self.queue_at(codebase, &url, command).await;
    }

    /// The same for a codebase at that URL.
    pub async fn queue_at(&self, codebase: &str, url: &str, command: &str) {
        assert_eq!(
            self.server
                .post(
                    "/codebases",
                    &json!([{ "name": codebase, "url": url, "vcs_type": "git" }])
                )
                .await
                .0,
            200
        );
        let stored = self
            .server
            .post(
                "/candidates",
                &json!([{ "codebase": codebase, "campaign": "gen", "command": command }]),
            )
            .await;
        assert_eq!(
            stored.1["success"].as_array().map(Vec::len),
            Some(1),
            "{stored:?}"
        );
    }

    /// The command that starts a worker.
    pub fn command(&self, name: &str, url: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(["worker", "--name", name, "--idle", "1", "--url", url])
            .arg("--work-dir")
            .arg(self.path(&format!("work-{name}")));
        command
            .env("JANITOR_WORKER_PASSWORD", "secret")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        command.stderr(
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(self.path(&format!("{name}.log")))
                .unwrap(),
        );
        command
    }

    pub fn worker(&self, name: &str, extra: &[&str]) -> Worker {
        let mut command = self.command(name, &format!("{}/runner", self.server.public));
        Worker::start(command.args(extra))
    }

    /// Starts a worker in a network namespace.
    pub fn worker_in(&self, namespace: &str, name: &str, url: &str) -> Worker {
        let inner = self.command(name, url);
        let mut outer = Command::new("ip");
        outer
            .args(["netns", "exec", namespace])
            .arg(inner.get_program())
            .args(inner.get_args())
            .env("JANITOR_WORKER_PASSWORD", "secret");
        outer
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(self.path(&format!("{name}.log"))).unwrap());
        Worker::start(&mut outer)
    }

    /// Waits for the active run of a codebase and returns its id.
    pub async fn active_run_of(&self, codebase: &str) -> String {
        let of_codebase = |runs: &Value| {
            runs.as_array()
                .and_then(|runs| runs.iter().find(|run| run["codebase"] == codebase).cloned())
        };
        let runs = self
            .server
            .until("/active-runs", |runs| of_codebase(runs).is_some())
            .await;
        of_codebase(&runs).unwrap()["id"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Waits until the log of an active run contains a text.
    pub async fn wait_for_log(&self, id: &str, text: &str) {
        let text = text.to_owned();
        self.server
            .until(&format!("/log/{id}/worker.log"), move |log| {
                log.as_str().is_some_and(|log| log.contains(&text))
            })
            .await;
    }

    /// Waits until a run is stored with that code, and returns it.
    pub async fn wait_for_run(&self, id: &str, code: &str) -> Value {
        self.server
            .until(&format!("/runs/{id}?full=1"), |run| run["code"] == code)
            .await
    }

    /// All runs of a codebase, as (id, code).
    pub async fn runs(&self, codebase: &str) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (_, runs) = self.server.get("/runs?limit=1000").await;
        let of_codebase = runs
            .as_array()
            .unwrap()
            .iter()
            .filter(|run| run["codebase"] == codebase);
        of_codebase
            .map(|run| (text(&run["log_id"]), text(&run["code"])))
            .collect()
    }
}

/// Records the outcome of a fault for the table in docs/faults.md (`make faults`).
pub fn record_outcome(file: &str, cells: &[&str]) {
    let folder = super::process::root().join("target/fault-rows");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(file), format!("| {} |\n", cells.join(" | "))).unwrap();
}
