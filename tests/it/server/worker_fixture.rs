//! A server with a repository, and one run after the other of the bundled worker on it.

use crate::support::worker_harness::WorkerHarness;
use serde_json::Value;
use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

/// How long one run of the worker may take before the test fails.
const RUN_TIMEOUT: Duration = Duration::from_secs(60);

/// The ids of the `sleep` processes whose command line has this text, but for zombies.
pub fn running(text: &str) -> Vec<String> {
    let mut found = vec![];
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.starts_with("sleep ") && line.contains(text) {
            found.push(entry.file_name().into_string().unwrap());
        }
    }
    found
}

/// Lets a worker find no namespaces of processes, as on machines that do not allow them.
pub fn without_namespaces(worker: &mut Command, folder: &Path) {
    let setpriv = folder.join("setpriv");
    std::fs::write(&setpriv, "#!/bin/sh\nexit 1\n").unwrap();
    std::fs::set_permissions(&setpriv, PermissionsExt::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    worker.env("PATH", format!("{}:{path}", folder.display()));
}

pub struct WorkerFixture {
    pub harness: WorkerHarness,
    codebases: usize,
}

impl WorkerFixture {
    pub async fn start() -> Self {
        Self::with_settings("").await
    }

    /// Starts a server; `settings` add to its own.
    pub async fn with_settings(settings: &str) -> Self {
        Self::with_store("memory:", settings).await
    }

    /// Starts a server on a store of that kind.
    pub async fn with_store(kind: &str, settings: &str) -> Self {
        Self {
            harness: WorkerHarness::open(kind, settings).await,
            codebases: 0,
        }
    }

    /// Queues a command for a codebase that no other run has changed; returns its name.
    pub async fn queue(&mut self, command: &str) -> String {
        self.codebases += 1;
        let codebase = format!("c{}", self.codebases);
        self.harness.queue(&codebase, command).await;
        codebase
    }

    /// The command that starts a worker for one run.
    pub fn worker(&self) -> Command {
        let url = format!("{}/runner", self.harness.server.public);
        let mut worker = self.harness.command("w1", &url);
        worker.arg("--once");
        worker
    }

    /// Runs a codemod, and returns the run that is stored.
    pub async fn run(&mut self, command: &str) -> Value {
        self.run_with(command, |_| {}).await
    }

    /// Runs a codemod by a worker that `change` changes, and returns the run that is stored.
    pub async fn run_with(&mut self, command: &str, change: impl FnOnce(&mut Command)) -> Value {
        let codebase = self.queue(command).await;
        let mut worker = self.worker();
        // Others are queued again once their run has ended.
        worker.args(["--codebase", &codebase]);
        change(&mut worker);
        let output = end_of(worker).await;
        assert!(output.status.success(), "{}", self.worker_log());
        self.stored(&codebase).await
    }

    /// The only run of a codebase.
    pub async fn stored(&self, codebase: &str) -> Value {
        let runs = self.harness.runs(codebase).await;
        assert_eq!(runs.len(), 1, "{runs:?}\n{}", self.worker_log());
        let (_, run) = self
            .harness
            .server
            .get(&format!("/runs/{}?full=1", runs[0].0))
            .await;
        run
    }

    pub fn worker_log(&self) -> String {
        std::fs::read_to_string(self.harness.path("w1.log")).unwrap_or_default()
    }

    /// The names of the artifacts that are stored of a run.
    pub fn artifacts(&self, run: &Value) -> Vec<String> {
        let folder = self
            .harness
            .path("artifacts")
            .join(run["log_id"].as_str().unwrap());
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    pub fn artifact(&self, run: &Value, name: &str) -> Vec<u8> {
        let folder = self
            .harness
            .path("artifacts")
            .join(run["log_id"].as_str().unwrap());
        std::fs::read(folder.join(name)).unwrap()
    }

    pub async fn log(&self, run: &Value) -> String {
        let path = format!("/log/{}/worker.log", run["log_id"].as_str().unwrap());
        let response = self.harness.server.request("GET", &path).send().await;
        let bytes = response.unwrap().bytes().await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The repository that the result of a codebase was pushed to.
    pub fn pushed(&self, codebase: &str) -> std::path::PathBuf {
        self.harness.path("vcs/git").join(codebase)
    }
}

/// Runs a program to its end, which must come in time.
pub async fn end_of(mut program: Command) -> Output {
    let mut child = program.stdin(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > RUN_TIMEOUT {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{program:?} did not end");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap())
        .await
        .unwrap()
}
