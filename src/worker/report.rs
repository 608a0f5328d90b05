//! The outcome of a run, and the report that the worker uploads: `result.json`.

use super::{api::Assignment, git::GitError};
use crate::domain::time::Time;
use chrono::SecondsFormat;
use serde_json::{Map, Value, json};

/// Fields of the report that the script may set, and what they are called in its own result.
const SCRIPT_FIELDS: [(&str, &str); 6] = [
    ("description", "description"),
    ("value", "value"),
    ("context", "context"),
    ("tags", "tags"),
    ("details", "details"),
    ("target_branch_url", "target-branch-url"),
];

/// Why a run failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// The result code of the run.
    pub(super) code: String,
    /// The reason, for people.
    pub(super) description: String,
    /// The step that failed.
    pub(super) stage: &'static str,
    /// Whether the same run may succeed later.
    pub(super) transient: bool,
    /// The script's own result; null without one.
    pub(super) script: Value,
}

/// What a run that did not fail produced.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The result code when nothing was changed; none for success.
    pub(super) code: Option<&'static str>,
    /// The revision that the run started from; none in an empty repository.
    pub(super) base: Option<String>,
    /// The revision that it ended with.
    pub(super) revision: Option<String>,
    /// Whether an earlier result was to be resumed, but did not fit any more.
    pub(super) refreshed: bool,
    /// The script's own result; null without one.
    pub(super) script: Value,
}

impl Failure {
    /// Makes a failure that is not transient.
    pub(super) fn new(code: &str, stage: &'static str, description: impl ToString) -> Self {
        Self {
            code: code.to_owned(),
            description: description.to_string(),
            stage,
            transient: false,
            script: Value::Null,
        }
    }

    /// Makes failures of git.
    pub(super) fn of_git(code: &'static str, stage: &'static str) -> impl FnOnce(GitError) -> Self {
        move |error| Self::new(code, stage, error)
    }

    /// Makes the failure of a run that was stopped, whatever failed because of that.
    pub(super) fn killed(self) -> Self {
        Self {
            code: "killed".to_owned(),
            description: "the run was stopped on request".to_owned(),
            transient: true,
            ..self
        }
    }
}

fn timestamp(time: Time) -> Value {
    time.to_rfc3339_opts(SecondsFormat::Micros, true).into()
}

/// Makes the report of a run.
pub(super) fn report(
    assignment: &Assignment,
    outcome: &Result<Outcome, Failure>,
    started: Time,
    finished: Time,
) -> Map<String, Value> {
    let mut report = Map::new();
    let mut set = |key: &str, value: Value| report.insert(key.to_owned(), value);
    set("start_time", timestamp(started));
    set("finish_time", timestamp(finished));
    set("codebase", json!(assignment.codebase));
    set("branch_url", json!(assignment.branch.url));
    set("subpath", json!(assignment.branch.subpath));
    set("vcs_type", "git".into());
    let script = match outcome {
        Ok(outcome) => &outcome.script,
        Err(failure) => &failure.script,
    };
    set("codemod", script.clone());
    for (key, name) in SCRIPT_FIELDS {
        set(key, script.get(name).cloned().unwrap_or_default());
    }
    match outcome {
        Ok(outcome) => {
            set("code", json!(outcome.code.unwrap_or("success")));
            set("main_branch_revision", json!(outcome.base));
            set("revision", json!(outcome.revision));
            set("refreshed", outcome.refreshed.into());
            set("target", json!({ "name": "generic", "details": {} }));
            set("branches", branches(assignment, outcome));
        }
        Err(failure) => {
            set("code", json!(failure.code));
            set("description", json!(failure.description));
            set("stage", json!(failure.stage));
            set("transient", json!(failure.transient));
        }
    }
    report
}

/// Lists the branch with the changes; there is none when nothing was changed.
fn branches(assignment: &Assignment, outcome: &Outcome) -> Value {
    match outcome.code {
        None => json!([["main", assignment.campaign, outcome.base, outcome.revision]]),
        Some(_) => json!([]),
    }
}
