//! The steps of one run, from the checkout to the upload.

use super::{
    WorkerConfig, WorkerError,
    api::{Api, Assignment},
    backchannel::{Backchannel, CurrentRun},
    codemod::{ProgramEnd, Supervision},
    environment::Environment,
    folders::{self, Folders, RESULT_VARIABLE},
    git::{Checkout, Resumed},
    heartbeat::Heartbeat,
    isolation::Isolation,
    log::RunLog,
    processes::Family,
    report::{self, Failure, Outcome},
    repository::Repository,
    script_result::{self, ScriptResult},
    upload::Upload,
};
use crate::{adapters::clock::SystemClock, domain::redact::redact_result, ports::Clock};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, io::Write, path::PathBuf, process::ExitStatus, time::Duration};
use tokio_util::sync::CancellationToken;

/// The result code of a run whose script has made another repository of its checkout.
const VCS_DAMAGED: &str = "vcs-damaged";
/// How long a worker that is shut down immediately still tries to upload the result of its run.
const FINAL_UPLOAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Returns once an immediate shutdown was requested and the time for a last upload is over.
async fn after_grace_period(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    tokio::time::sleep(FINAL_UPLOAD_TIMEOUT).await;
}

/// A run that is being executed.
pub(super) struct Run<'a> {
    config: &'a WorkerConfig,
    pub(super) assignment: &'a Assignment,
    pub(super) folders: &'a Folders,
    pub(super) log: &'a RunLog,
    /// Cancelled when the run is to stop.
    pub(super) stop: &'a CancellationToken,
    /// Ends the processes that the run leaves behind.
    family: &'a Family,
    /// Keeps the programs of scripts together.
    isolation: &'a Isolation,
    /// The entry in the environment of scripts that no other run has.
    mark: String,
}

/// Executes one assignment and uploads its result; `shutdown` stops both.
///
/// # Errors
///
/// Returns an error when the machine fails, or the result cannot be uploaded because the runner is
/// unreachable. A result that the runner rejects is logged only, because the next run may succeed.
pub(super) async fn execute(
    config: &WorkerConfig,
    api: &Api,
    backchannel: &Backchannel,
    family: &Family,
    isolation: &Isolation,
    assignment: &Assignment,
    shutdown: &CancellationToken,
) -> Result<(), WorkerError> {
    let folders = Folders::make(&config.work_dir, config.run_as)
        .map_err(WorkerError::io("make the folders of a run"))?;
    let log = RunLog::create(&folders.logs).map_err(WorkerError::io("make the log of a run"))?;
    let stop = shutdown.child_token();
    backchannel.set_current(Some(CurrentRun {
        id: assignment.id.clone(),
        logs: folders.logs.clone(),
        stop: stop.clone(),
    }));
    tracing::info!(
        run.id = assignment.id,
        campaign = assignment.campaign,
        codebase = assignment.codebase,
        "starting a run"
    );
    let heartbeat = Heartbeat::start(api, assignment, &log, &stop);
    let run = Run {
        config,
        assignment,
        folders: &folders,
        log: &log,
        stop: &stop,
        family,
        isolation,
        mark: folders::mark(&folders.all),
    };
    let report = run.report().await;
    let code = report
        .get("code")
        .and_then(Value::as_str)
        .unwrap_or("success")
        .to_owned();
    let uploaded = upload(api, &run, report, &heartbeat, shutdown).await;
    drop(heartbeat);
    backchannel.set_current(None);
    match uploaded {
        Err(refused @ WorkerError::Refused { .. }) => {
            tracing::error!(
                run.id = assignment.id,
                error = &refused as &dyn std::error::Error,
                "a result was rejected"
            );
            Ok(())
        }
        Ok(()) => {
            tracing::info!(run.id = assignment.id, code, "a run ended");
            Ok(())
        }
        uploaded => uploaded,
    }
}

/// Uploads the report and the files of a run, unless the result is superseded. The heartbeat
/// continues meanwhile, since a long upload would outlast the lease.
async fn upload(
    api: &Api,
    run: &Run<'_>,
    report: Map<String, Value>,
    heartbeat: &Heartbeat,
    shutdown: &CancellationToken,
) -> Result<(), WorkerError> {
    let upload = Upload {
        api,
        assignment: run.assignment,
        folders: run.folders,
        log: run.log,
    };
    let finish = async {
        if heartbeat.result_superseded() {
            Ok(())
        } else {
            upload.send(report).await
        }
    };
    tokio::select! {
        uploaded = finish => uploaded,
        () = after_grace_period(shutdown) => {
            tracing::error!(
                run.id = run.assignment.id,
                "the result was not uploaded; the runner ends the run when its lease expires"
            );
            Ok(())
        }
    }
}

impl Run<'_> {
    fn supervision(&self) -> Supervision<'_> {
        Supervision {
            log: self.log,
            stop: self.stop,
            timeout: self.config.timeout,
            family: self.family,
            isolation: self.isolation,
            mark: &self.mark,
        }
    }

    fn environment(&self) -> Environment<'_> {
        Environment {
            assigned: &self.assignment.env,
            run_folder: &self.folders.all,
            git_config: self.config.git_config.as_deref(),
            script_git_config: &self.folders.git_config,
            script_home: &self.folders.home,
            user: self.config.run_as,
            isolation: self.isolation,
            passed: &self.config.pass_env,
        }
    }

    fn checkout(&self) -> Checkout<'_> {
        Checkout {
            path: &self.folders.checkout,
            environment: self.environment(),
            supervision: self.supervision(),
        }
    }

    /// Executes all steps and makes the report.
    async fn report(&self) -> Map<String, Value> {
        let assignment = self.assignment;
        self.log.line(&format!(
            "{} on {}: {}",
            assignment.campaign, assignment.codebase, assignment.command
        ));
        let started = SystemClock.now();
        let outcome = self.outcome().await.map_err(|failure| {
            // A program that was stopped fails in some way of its own.
            if self.stop.is_cancelled() {
                failure.killed()
            } else {
                failure
            }
        });
        let ended = self.supervision().end_remains().await;
        let outcome = outcome.and_then(|outcome| match ended {
            Ok(()) => Ok(outcome),
            Err(error) => Err(Failure::new("command-failed", "", error)),
        });
        let report = report::report(assignment, &outcome, started, SystemClock.now());
        let code = report.get("code").and_then(Value::as_str);
        self.log
            .line(&format!("result: {}", code.unwrap_or("success")));
        report
    }

    /// Rejects assignments that this worker cannot execute.
    fn check_assignment(&self) -> Result<(), Failure> {
        let Assignment { branch, build, .. } = self.assignment;
        if build.target != "generic" {
            return Err(Failure::new(
                "unsupported-build-target",
                "setup",
                format!("this worker cannot build for {}", build.target),
            ));
        }
        if branch.vcs_type.as_deref().is_some_and(|vcs| vcs != "git") {
            return Err(Failure::new(
                "unsupported-vcs",
                "setup",
                "this worker knows only git",
            ));
        }
        if branch.url.is_none() && !branch.default_empty {
            return Err(Failure::new(
                "not-in-vcs",
                "setup",
                "the codebase has no branch",
            ));
        }
        Ok(())
    }

    async fn outcome(&self) -> Result<Outcome, Failure> {
        self.check_assignment()?;
        let checkout = self.checkout();
        self.clone(&checkout).await?;
        self.fetch_colocated(&checkout).await?;
        let base = checkout
            .revision()
            .await
            .map_err(Failure::of_git("clone-failed", "setup/clone"))?;
        let resumed = self.resume(&checkout).await?;
        // Not the base: after a resume, only what this run adds counts as a change, and that the
        // earlier result was rebased.
        let before = match &resumed {
            Some(Resumed::From(earlier)) => Some(earlier.clone()),
            _ => base.clone(),
        };
        let repository = Repository::of_checkout(checkout.path)
            .map_err(|e| Failure::new("clone-failed", "setup/clone", e))?;
        if let Some(user) = self.config.run_as {
            user.own(checkout.path)
                .map_err(|e| Failure::new("clone-failed", "setup/clone", e))?;
        }
        let script = self.codemod().await?;
        repository
            .restore()
            .map_err(|e| Failure::new(VCS_DAMAGED, "codemod/commit", e))?;
        let revision = self.commit(&checkout, &script).await?;
        self.check_history(&checkout, base.as_deref(), revision.as_deref())
            .await?;
        // The branch itself has all of an earlier result once that was merged.
        let is_merged = revision == base;
        let changed = revision != before && !is_merged;
        let code = match (changed, &resumed) {
            (true, _) => None,
            (false, Some(Resumed::From(_))) if !is_merged => Some("nothing-new-to-do"),
            (false, _) => Some("nothing-to-do"),
        };
        if changed || self.assignment.force_build {
            self.build().await?;
        }
        if let Some(revision) = revision.as_deref().filter(|_| changed) {
            // The build may have changed the repository too.
            repository
                .restore()
                .map_err(|e| Failure::new(VCS_DAMAGED, "deliver/patch", e))?;
            self.deliver(&checkout, base.as_deref(), revision).await?;
        }
        Ok(Outcome {
            code,
            base,
            revision,
            refreshed: resumed == Some(Resumed::Misfit),
            script,
        })
    }

    /// Returns the environment of scripts, as the protocol of silver-platter names it.
    fn script_environment(&self) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let mut set = |key: &str, value: String| env.insert(key.to_owned(), value);
        set("SVP_API", "1".into());
        set(RESULT_VARIABLE, self.folders.result.display().to_string());
        set(
            "OUTPUT_DIRECTORY",
            self.folders.output.display().to_string(),
        );
        if self.folders.resume.exists() {
            set("SVP_RESUME", self.folders.resume.display().to_string());
        }
        env
    }

    /// Returns the folder of the codebase in the checkout.
    fn folder(&self) -> PathBuf {
        let subpath = self.assignment.branch.subpath.as_deref();
        let subpath = subpath.unwrap_or_default().trim_start_matches('/');
        self.folders.checkout.join(subpath)
    }

    /// Runs a shell command in the checkout.
    async fn shell(&self, command: &str, stage: &'static str) -> Result<ExitStatus, Failure> {
        self.log.line(&format!("+ {command}"));
        let mut shell = self
            .environment()
            .shell(command, &self.script_environment());
        shell.current_dir(self.folder());
        match self.supervision().run(shell).await {
            Ok(ProgramEnd::Exited(status)) => Ok(status),
            Ok(ProgramEnd::Stopped) => Err(Failure::new("killed", stage, "").killed()),
            Ok(ProgramEnd::TimedOut) => Err(Failure::new(
                "timeout",
                stage,
                format!("took longer than {} s", self.config.timeout.as_secs()),
            )),
            Err(error) => Err(Failure::new("command-failed", stage, error)),
        }
    }

    /// Runs the script; returns its own result.
    async fn codemod(&self) -> Result<ScriptResult, Failure> {
        let status = self.shell(&self.assignment.command, "codemod").await?;
        // Signals and the heartbeat are not kept waiting by the largest of results.
        let path = self.folders.result.clone();
        let read = tokio::task::spawn_blocking(move || ScriptResult::read(&path)).await;
        let read = read.unwrap_or_else(|e| Err(format!("cannot be read: {e}")));
        let script = read.map_err(|reason| {
            let description = format!("the script's result {reason}");
            Failure::new("codemod-result-invalid", "codemod", description)
        })?;
        let code = script.failure_code();
        if status.success() && code.as_ref().is_none_or(|code| code == "nothing-to-do") {
            return Ok(script);
        }
        let stage = [vec!["codemod".to_owned()], script.stage()].concat();
        Err(Failure {
            code: code.unwrap_or_else(|| "command-failed".to_owned()),
            description: script
                .description()
                .unwrap_or_else(|| format!("the command ended with {status}")),
            stage: stage.join("/"),
            transient: script.is_transient(),
            script,
        })
    }

    /// Returns the message for what the script left uncommitted.
    fn commit_message(&self, script: &ScriptResult) -> String {
        let description = script.description();
        let message = description.as_deref().unwrap_or(&self.assignment.command);
        // git refuses NUL bytes and empty messages.
        let message = script_result::cut(&redact_result(message).replace('\0', ""));
        match message.trim() {
            "" => format!("Apply {}", self.assignment.campaign),
            message => message.to_owned(),
        }
    }

    /// Commits what the script left uncommitted; returns the revision after it.
    async fn commit(
        &self,
        checkout: &Checkout<'_>,
        script: &ScriptResult,
    ) -> Result<Option<String>, Failure> {
        // A script may have put a link there.
        let _ = std::fs::remove_file(&self.folders.message);
        std::fs::File::create_new(&self.folders.message)
            .and_then(|mut file| file.write_all(self.commit_message(script).as_bytes()))
            .map_err(|e| Failure::new("commit-failed", "codemod/commit", e))?;
        checkout
            .commit(&self.folders.message)
            .await
            .map_err(Failure::of_git("commit-failed", "codemod/commit"))?;
        checkout
            .revision()
            .await
            .map_err(Failure::of_git("commit-failed", "codemod/commit"))
    }

    /// Checks that a revision is based on the branch: anything else would be the history of another
    /// repository.
    async fn check_history(
        &self,
        checkout: &Checkout<'_>,
        base: Option<&str>,
        revision: Option<&str>,
    ) -> Result<(), Failure> {
        let Some(base) = base else { return Ok(()) };
        let is_based = checkout
            .is_ancestor(base, revision.unwrap_or("HEAD"))
            .await
            .map_err(Failure::of_git("commit-failed", "codemod/commit"))?;
        if is_based {
            return Ok(());
        }
        Err(Failure::new(
            VCS_DAMAGED,
            "codemod/commit",
            "the history of the checkout does not contain the revision that it began with",
        ))
    }

    /// Runs the build command of the assignment or of the worker, if either has one.
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
            Err(Failure::new(
                "build-failed",
                "build",
                format!("the build ended with {status}"),
            ))
        }
    }

    /// Writes the change as a patch among the artifacts, and pushes it as a branch to the target
    /// repository.
    async fn deliver(
        &self,
        checkout: &Checkout<'_>,
        base: Option<&str>,
        revision: &str,
    ) -> Result<(), Failure> {
        checkout
            .write_patch(base, revision, &self.folders.patch)
            .await
            .map_err(Failure::of_git("patch-failed", "deliver/patch"))?;
        let Some(repository) = &self.assignment.target_repository.url else {
            return Ok(());
        };
        let branch = format!("{}/main", self.assignment.campaign);
        let pushed = checkout.push(repository, revision, &branch).await;
        pushed.map_err(|error| Failure {
            transient: true,
            ..Failure::new("push-failed", "deliver/push", error)
        })
    }
}
