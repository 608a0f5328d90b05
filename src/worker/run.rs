//! One run, from the checkout to the upload.

use super::{
    Api, Assignment, WorkerConfig, WorkerError,
    backchannel::{Backchannel, Current},
    codemod::{self, Ended},
    git::{Checkout, GitError},
    heartbeat::Signs,
    log::{self, RunLog},
};
use crate::{adapters::clock::SystemClock, ports::Clock};
use chrono::SecondsFormat;
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// How long a worker that is to end at once tries to hand in what it has.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Why a run did not come to a result of its own; the code of the run.
#[derive(Debug)]
struct Failure {
    code: String,
    description: String,
    stage: &'static str,
    transient: bool,
    /// What the script said.
    script: Value,
}

/// What a run came to.
#[derive(Debug, Default)]
struct Outcome {
    code: Option<&'static str>,
    base: Option<String>,
    revision: Option<String>,
    refreshed: bool,
    /// What the script said.
    script: Value,
}

fn failure(code: &str, stage: &'static str, description: impl ToString) -> Failure {
    Failure {
        code: code.to_owned(),
        description: description.to_string(),
        stage,
        transient: false,
        script: Value::Null,
    }
}

fn git_failure(code: &'static str, stage: &'static str) -> impl FnOnce(GitError) -> Failure {
    move |error| failure(code, stage, error)
}

/// Whatever failed because the run was told to stop.
fn killed(failure: Failure) -> Failure {
    Failure {
        code: "killed".to_owned(),
        description: "the run was told to stop".to_owned(),
        transient: true,
        ..failure
    }
}

/// Ends some time after a worker was told to end at once.
async fn too_late(now: &CancellationToken) {
    now.cancelled().await;
    tokio::time::sleep(LAST_WORDS).await;
}

/// The folders of one run; gone when it ends.
struct Folders {
    _all: TempDir,
    checkout: PathBuf,
    logs: PathBuf,
    output: PathBuf,
    result: PathBuf,
    resume: PathBuf,
}

impl Folders {
    fn make(work_dir: &Path) -> std::io::Result<Self> {
        let all = tempfile::Builder::new()
            .prefix("run-")
            .tempdir_in(work_dir)?;
        let [checkout, logs, output] =
            ["checkout", "logs", "output"].map(|name| all.path().join(name));
        for folder in [&checkout, &logs, &output] {
            std::fs::create_dir(folder)?;
        }
        let (result, resume) = (
            all.path().join("svp-result.json"),
            all.path().join("svp-resume.json"),
        );
        Ok(Self {
            _all: all,
            checkout,
            logs,
            output,
            result,
            resume,
        })
    }

    /// Everything in the output folder, and the logs.
    fn files(&self) -> std::io::Result<Vec<(String, PathBuf)>> {
        let mut files = vec![];
        for folder in [&self.logs, &self.output] {
            for name in log::names(folder)? {
                let path = folder.join(&name);
                if path.is_file() {
                    files.push((name, path));
                }
            }
        }
        Ok(files)
    }
}

struct Run<'a> {
    config: &'a WorkerConfig,
    assignment: &'a Assignment,
    folders: &'a Folders,
    log: &'a RunLog,
    stop: &'a CancellationToken,
}

/// Carries out one assignment and uploads what came of it; `now` stops both.
pub(super) async fn carry_out(
    config: &WorkerConfig,
    api: &Api,
    backchannel: &Backchannel,
    assignment: &Assignment,
    now: &CancellationToken,
) -> Result<(), WorkerError> {
    let folders =
        Folders::make(&config.work_dir).map_err(WorkerError::io("make the folders of a run"))?;
    let log = RunLog::create(&folders.logs).map_err(WorkerError::io("make the log of a run"))?;
    let stop = now.child_token();
    backchannel.show(Some(Current {
        id: assignment.id.clone(),
        logs: folders.logs.clone(),
        stop: stop.clone(),
    }));
    tracing::info!(
        run.id = assignment.id,
        campaign = assignment.campaign,
        codebase = assignment.codebase,
        "starts a run"
    );
    let signs = Signs::give(api, assignment, &folders.logs, &stop);
    log.line(&format!(
        "{} on {}: {}",
        assignment.campaign, assignment.codebase, assignment.command
    ));
    let run = Run {
        config,
        assignment,
        folders: &folders,
        log: &log,
        stop: &stop,
    };
    let started = SystemClock.now();
    let outcome = run.outcome().await.map_err(|failure| {
        if stop.is_cancelled() {
            killed(failure)
        } else {
            failure
        }
    });
    let report = run.report(
        &outcome,
        &started.to_rfc3339_opts(SecondsFormat::Micros, true),
    );
    log.line(&format!(
        "result: {}",
        report
            .get("code")
            .and_then(Value::as_str)
            .unwrap_or("success")
    ));
    let files = folders
        .files()
        .map_err(WorkerError::io("list the files of a run"))?;
    // The lease is kept up while the result is on its way.
    let handing_in = async {
        if signs.say_useless() {
            Ok(())
        } else {
            api.finish(&assignment.id, &report, &files).await
        }
    };
    let uploaded = tokio::select! {
        uploaded = handing_in => uploaded,
        () = too_late(now) => {
            tracing::error!(run.id = assignment.id, "the result is not handed in; the runner will notice that the lease runs out");
            Ok(())
        }
    };
    drop(signs);
    backchannel.show(None);
    match uploaded {
        // The runner gave the run up, or knows better; the next one is none the worse for it.
        Err(refused @ WorkerError::Refused { .. }) => {
            tracing::error!(
                run.id = assignment.id,
                error = &refused as &dyn std::error::Error,
                "a result was refused"
            );
            Ok(())
        }
        uploaded => uploaded,
    }
}

impl Run<'_> {
    fn checkout(&self) -> Checkout<'_> {
        Checkout {
            path: self.folders.checkout.clone(),
            env: &self.assignment.env,
            log: self.log,
            stop: self.stop,
            longest: self.config.timeout,
        }
    }

    async fn outcome(&self) -> Result<Outcome, Failure> {
        let Assignment { branch, build, .. } = self.assignment;
        if build.target != "generic" {
            return Err(failure(
                "unsupported-build-target",
                "setup",
                format!("this worker cannot build for {}", build.target),
            ));
        }
        if branch.vcs_type.as_deref().is_some_and(|vcs| vcs != "git") {
            return Err(failure(
                "unsupported-vcs",
                "setup",
                "this worker knows only git",
            ));
        }
        if branch.url.is_none() && !branch.default_empty {
            return Err(failure("not-in-vcs", "setup", "the codebase has no branch"));
        }
        let checkout = self.checkout();
        checkout
            .start(branch.url.as_deref())
            .await
            .map_err(git_failure("clone-failed", "setup/clone"))?;
        let base = checkout
            .revision()
            .await
            .map_err(git_failure("clone-failed", "setup/clone"))?;
        let (resumed, refreshed) = self.resume(&checkout).await?;
        let before = checkout
            .revision()
            .await
            .map_err(git_failure("clone-failed", "setup/resume"))?;
        let script = self.codemod().await?;
        let message = script
            .get("description")
            .and_then(Value::as_str)
            .unwrap_or(&self.assignment.command);
        checkout
            .commit(message)
            .await
            .map_err(git_failure("commit-failed", "codemod/commit"))?;
        let revision = checkout
            .revision()
            .await
            .map_err(git_failure("commit-failed", "codemod/commit"))?;
        let changed = revision != before;
        let code = match (changed, resumed) {
            (true, _) => None,
            (false, true) => Some("nothing-new-to-do"),
            (false, false) => Some("nothing-to-do"),
        };
        if changed || self.assignment.force_build {
            self.build().await?;
        }
        if changed {
            self.deliver(&checkout, base.as_deref()).await?;
        }
        Ok(Outcome {
            code,
            base,
            revision,
            refreshed,
            script,
        })
    }

    /// Continues from the earlier result, if there is one and it still fits. Answers whether it did, and whether it had to start afresh.
    async fn resume(&self, checkout: &Checkout<'_>) -> Result<(bool, bool), Failure> {
        let Some(resume) = &self.assignment.resume else {
            return Ok((false, false));
        };
        let resumed = checkout
            .resume(&resume.branch_url)
            .await
            .map_err(git_failure("resume-failed", "setup/resume"))?;
        if resumed {
            let result = resume.result.clone().unwrap_or_default().to_string();
            std::fs::write(&self.folders.resume, result)
                .map_err(|e| failure("resume-failed", "setup/resume", e))?;
        }
        Ok((resumed, !resumed))
    }

    fn environment(&self) -> BTreeMap<String, String> {
        let mut env = self.assignment.env.clone();
        let mut set = |key: &str, value: String| env.insert(key.to_owned(), value);
        set("SVP_API", "1".into());
        set("SVP_RESULT", self.folders.result.display().to_string());
        set(
            "OUTPUT_DIRECTORY",
            self.folders.output.display().to_string(),
        );
        if self.folders.resume.exists() {
            set("SVP_RESUME", self.folders.resume.display().to_string());
        }
        env
    }

    async fn shell(
        &self,
        command: &str,
        stage: &'static str,
    ) -> Result<std::process::ExitStatus, Failure> {
        let subpath = self
            .assignment
            .branch
            .subpath
            .as_deref()
            .unwrap_or_default()
            .trim_start_matches('/');
        let folder = self.folders.checkout.join(subpath);
        self.log.line(&format!("+ {command}"));
        let shell = codemod::shell(command, &folder, &self.environment());
        match codemod::run(shell, self.log, self.stop, self.config.timeout).await {
            Ok(Ended::By(status)) => Ok(status),
            Ok(Ended::Killed) => Err(killed(failure("killed", stage, ""))),
            Ok(Ended::TimedOut) => Err(failure(
                "timeout",
                stage,
                format!("took longer than {} s", self.config.timeout.as_secs()),
            )),
            Err(error) => Err(failure("command-failed", stage, error)),
        }
    }

    /// Runs the script; answers what it said of itself.
    async fn codemod(&self) -> Result<Value, Failure> {
        let status = self.shell(&self.assignment.command, "codemod").await?;
        let script = match std::fs::read(&self.folders.result) {
            Ok(bytes) => serde_json::from_slice::<Value>(&bytes).map_err(|e| {
                failure(
                    "codemod-result-invalid",
                    "codemod",
                    format!("the script's result is not JSON: {e}"),
                )
            })?,
            Err(_) => Value::Null,
        };
        let code = script
            .get("code")
            .and_then(Value::as_str)
            .filter(|code| *code != "success");
        if status.success() && code.is_none_or(|code| code == "nothing-to-do") {
            return Ok(script);
        }
        let description = script
            .get("description")
            .and_then(Value::as_str)
            .map_or_else(|| format!("the command ended with {status}"), str::to_owned);
        let transient = script
            .get("transient")
            .and_then(Value::as_bool)
            .unwrap_or(false);
        let code = code.unwrap_or("command-failed").to_owned();
        Err(Failure {
            code,
            description,
            stage: "codemod",
            transient,
            script,
        })
    }

    async fn build(&self) -> Result<(), Failure> {
        let of_assignment = self
            .assignment
            .build
            .config
            .get("build-command")
            .and_then(Value::as_str);
        let Some(command) = of_assignment.or(self.config.build_command.as_deref()) else {
            return Ok(());
        };
        let status = self.shell(command, "build").await?;
        if status.success() {
            Ok(())
        } else {
            Err(failure(
                "build-failed",
                "build",
                format!("the build ended with {status}"),
            ))
        }
    }

    /// The change, as a patch among the artifacts and as a branch in the target repository.
    async fn deliver(&self, checkout: &Checkout<'_>, base: Option<&str>) -> Result<(), Failure> {
        let patch = self
            .folders
            .output
            .join(format!("{}.patch", self.assignment.campaign));
        checkout
            .write_patch(base, &patch)
            .await
            .map_err(git_failure("patch-failed", "deliver/patch"))?;
        let Some(repository) = &self.assignment.target_repository.url else {
            return Ok(());
        };
        let branch = format!("{}/main", self.assignment.campaign);
        let pushed = checkout.push(repository, &branch).await;
        pushed.map_err(|error| Failure {
            transient: true,
            ..failure("push-failed", "deliver/push", error)
        })
    }

    fn report(&self, outcome: &Result<Outcome, Failure>, started: &str) -> Value {
        let mut report = Map::new();
        let mut set = |key: &str, value: Value| report.insert(key.to_owned(), value);
        set("start_time", started.into());
        set(
            "finish_time",
            SystemClock
                .now()
                .to_rfc3339_opts(SecondsFormat::Micros, true)
                .into(),
        );
        set("codebase", json!(self.assignment.codebase));
        set("branch_url", json!(self.assignment.branch.url));
        set("subpath", json!(self.assignment.branch.subpath));
        set("vcs_type", "git".into());
        let script = match outcome {
            Ok(outcome) => &outcome.script,
            Err(failure) => &failure.script,
        };
        set("codemod", script.clone());
        for (key, name) in [
            ("description", "description"),
            ("value", "value"),
            ("context", "context"),
            ("tags", "tags"),
            ("details", "details"),
            ("target_branch_url", "target-branch-url"),
        ] {
            set(key, script.get(name).cloned().unwrap_or_default());
        }
        match outcome {
            Ok(outcome) => {
                set("code", json!(outcome.code.unwrap_or("success")));
                set("main_branch_revision", json!(outcome.base));
                set("revision", json!(outcome.revision));
                set("refreshed", outcome.refreshed.into());
                set("target", json!({ "name": "generic", "details": {} }));
                let branch = json!([
                    "main",
                    self.assignment.campaign,
                    outcome.base,
                    outcome.revision
                ]);
                set(
                    "branches",
                    if outcome.code.is_none() {
                        json!([branch])
                    } else {
                        json!([])
                    },
                );
            }
            Err(failure) => {
                set("code", json!(failure.code));
                set("description", json!(failure.description));
                set("stage", json!(failure.stage));
                set("transient", json!(failure.transient));
            }
        }
        Value::Object(report)
    }
}
