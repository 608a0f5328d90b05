//! The outcome of a run, and the report that the worker uploads: `result.json`.

use super::{
    api::Assignment,
    git::GitError,
    script_result::{self, ScriptResult},
};
use crate::domain::{
    redact::{redact_result, without_login},
    time::Time,
};
use chrono::SecondsFormat;
use serde_json::{Map, Value, json};

/// The result code of a run whose result is not complete, because files of it were left out.
const ARTIFACT_INVALID: &str = "artifact-invalid";

/// Why a run failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// The result code of the run.
    pub(super) code: String,
    /// The reason, for people.
    pub(super) description: String,
    /// The step that failed.
    pub(super) stage: String,
    /// Whether the same run may succeed later.
    pub(super) transient: bool,
    /// The script's own result.
    pub(super) script: ScriptResult,
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
    /// The script's own result.
    pub(super) script: ScriptResult,
}

impl Failure {
    /// Makes a failure that is not transient.
    pub(super) fn new(code: &str, stage: &str, description: impl ToString) -> Self {
        Self {
            code: code.to_owned(),
            description: description.to_string(),
            stage: stage.to_owned(),
            transient: false,
            script: ScriptResult::default(),
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
    set(
        "branch_url",
        json!(assignment.branch.url.as_deref().map(without_login)),
    );
    set("subpath", json!(assignment.branch.subpath));
    set("vcs_type", "git".into());
    let script = match outcome {
        Ok(outcome) => &outcome.script,
        Err(failure) => &failure.script,
    };
    let revision = outcome.as_ref().ok().and_then(|o| o.revision.as_deref());
    for (key, value) in script.report_fields(revision) {
        set(key, value);
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
            let description = script_result::cut(&redact_result(&failure.description));
            set("description", json!(description.replace('\0', "")));
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

/// Makes a report of a run whose files are not all uploaded. The rest of the report is kept, and a
/// failure keeps its own code.
pub(super) fn with_files_left_out(
    mut report: Map<String, Value>,
    reason: &str,
) -> Map<String, Value> {
    let text = |report: &Map<String, Value>, key: &str| {
        let value = report.get(key).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let own_codes = ["success", "nothing-to-do", "nothing-new-to-do"];
    if own_codes.contains(&text(&report, "code").as_str()) {
        report.insert("code".into(), ARTIFACT_INVALID.into());
        report.insert("stage".into(), "deliver/upload".into());
        report.insert("transient".into(), false.into());
        report.insert("description".into(), script_result::cut(reason).into());
    } else {
        let description = text(&report, "description");
        let both = script_result::cut(&format!("{description}\n{reason}"));
        report.insert("description".into(), both.into());
    }
    report
}

/// Returns what a runner accepts of any report: the outcome, and the times.
pub(super) fn essential(report: &Map<String, Value>) -> Map<String, Value> {
    let keys = [
        "code",
        "description",
        "stage",
        "transient",
        "start_time",
        "finish_time",
        "codebase",
    ];
    report
        .iter()
        .filter(|(key, _)| keys.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}
