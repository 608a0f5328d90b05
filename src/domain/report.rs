//! Reports: `result.json`, as both generations of workers write it.

use super::{
    Invalid,
    invalid::text,
    name::RunId,
    run::{ResultBranch, ResultCode, ResultTag},
    time::{self, Time},
    vcs::VcsType,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// The report of a worker, as far as it could be parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The result code.
    pub code: ResultCode,
    /// The result in words.
    pub description: Option<String>,
    /// The context that the codemod reported.
    pub context: Option<String>,
    /// What the codemod reported about its result.
    pub codemod: Option<Value>,
    /// The revision of the main branch that the run started from.
    pub main_branch_revision: Option<String>,
    /// The revision that the run ended with.
    pub revision: Option<String>,
    /// The value of the change, by the codemod.
    pub value: Option<i32>,
    /// The branches of the result.
    pub branches: Option<Vec<ResultBranch>>,
    /// The tags of the result.
    pub tags: Option<Vec<ResultTag>>,
    /// The remote repositories of the result.
    pub remotes: Option<Value>,
    /// Details of the failure.
    pub details: Option<Value>,
    /// The stage that failed, its parts joined by slashes.
    pub stage: Option<String>,
    /// The build target.
    pub target: Option<ReportTarget>,
    /// The start of the run.
    pub start_time: Option<Time>,
    /// The end of the run.
    pub finish_time: Option<Time>,
    /// The name of the worker.
    pub worker_name: Option<String>,
    /// Whether the worker started afresh though it had a branch to resume from.
    pub refreshed: bool,
    /// The branch URL that the worker used.
    pub branch_url: Option<String>,
    /// The URL of the branch that the change is meant for, if it is another.
    pub target_branch_url: Option<String>,
    /// The version control system that the worker used.
    pub vcs_type: Option<VcsType>,
    /// The folder in the branch.
    pub subpath: Option<String>,
    /// Whether a repeat is expected to succeed where this run failed.
    pub transient: Option<bool>,
    /// The codebase that the worker worked on.
    pub codebase: Option<String>,
    /// The rules that the report breaks.
    pub problems: Vec<Invalid>,
    /// The report as it was received, which is kept when it breaks a rule.
    pub original: Value,
}

/// The build target that a worker reports.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportTarget {
    /// The name of the target, such as `debian`.
    pub name: String,
    /// Details about what was built.
    pub details: Value,
}

/// The fields of a report while it is parsed, and the problems found so far.
struct Fields<'a> {
    fields: &'a Map<String, Value>,
    problems: Vec<Invalid>,
}

impl Fields<'_> {
    fn value(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    fn fail(&mut self, field: &str, reason: impl Into<String>) {
        self.problems.push(Invalid::new(field, reason));
    }

    /// Records the problem of a field that cannot be parsed.
    fn ok_or_problem<T>(&mut self, result: Result<T, Invalid>) -> Option<T> {
        result.map_err(|problem| self.problems.push(problem)).ok()
    }

    fn read<T: DeserializeOwned>(&mut self, field: &str, wanted: &str) -> Option<T> {
        let value = self.value(field)?.clone();
        let read = serde_json::from_value(value)
            .map_err(|_| Invalid::new(field, format!("is not {wanted}")));
        self.ok_or_problem(read)
    }

    fn text(&mut self, field: &str) -> Option<String> {
        let value = self.read::<String>(field, "text")?;
        self.ok_or_problem(text(field, value))
    }

    fn time(&mut self, field: &str) -> Option<Time> {
        let value = self.text(field)?;
        self.ok_or_problem(time::parse(field, &value))
    }

    fn number(&mut self, field: &str) -> Option<i32> {
        let value = self.value(field)?;
        // JSON has one kind of number, so a worker may write 5 as 5.0.
        let whole = value.as_i64().or_else(|| {
            value
                .as_f64()
                .filter(|f| f.fract() == 0.0 && f.abs() < 1e15)
                .and_then(|f| format!("{f:.0}").parse().ok())
        });
        let number = whole.and_then(|n| i32::try_from(n).ok());
        if number.is_none() {
            self.fail(field, "is not a whole number of 32 bits");
        }
        number
    }

    fn json(&mut self, field: &str) -> Option<Value> {
        let value = self.value(field)?.clone();
        if has_nul(&value) {
            self.fail(field, "must not contain NUL bytes");
            return None;
        }
        Some(value)
    }

    fn stage(&mut self) -> Option<String> {
        let parts = match self.value("stage")? {
            Value::String(stage) => Some(vec![stage.clone()]),
            Value::Array(parts) => parts
                .iter()
                .map(|part| part.as_str().map(str::to_owned))
                .collect(),
            _ => None,
        };
        let Some(parts) = parts else {
            self.fail("stage", "is neither text nor a list of text");
            return None;
        };
        self.ok_or_problem(text("stage", parts.join("/")))
    }

    fn code(&mut self) -> ResultCode {
        let revision = self.value("revision").is_some();
        match self.fields.get("code") {
            Some(Value::Null) => ResultCode::success(),
            Some(_) => self
                .text("code")
                .map_or_else(ResultCode::success, ResultCode::new),
            None if revision => ResultCode::success(),
            None => ResultCode::new("missing-result-code"),
        }
    }

    fn target(&mut self) -> Option<ReportTarget> {
        let target = self.value("target")?.clone();
        let name = target.get("name").and_then(Value::as_str);
        match name {
            Some(name) => Some(ReportTarget {
                name: name.to_owned(),
                details: target.get("details").cloned().unwrap_or(Value::Null),
            }),
            None if target.as_object().is_some_and(Map::is_empty) => None,
            None => {
                self.fail("target", "is not an object with a name");
                None
            }
        }
    }

    fn branches(&mut self) -> Option<Vec<ResultBranch>> {
        let branches = self.read::<Vec<ResultBranch>>(
            "branches",
            "a list of [role, name, base revision, revision]",
        )?;
        let mut roles: Vec<&str> = branches.iter().map(|b| b.role.as_str()).collect();
        roles.sort_unstable();
        let twice = roles
            .iter()
            .zip(roles.iter().skip(1))
            .find(|(a, b)| a == b)
            .map(|(a, _)| (*a).to_owned());
        if let Some(role) = twice {
            self.fail("branches", format!("two branches have the role {role:?}"));
            return None;
        }
        Some(branches)
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(has_nul),
        Value::Object(map) => map
            .iter()
            .any(|(key, value)| key.contains('\0') || has_nul(value)),
        _ => false,
    }
}

/// Parses a report. No input makes this fail: what breaks a rule is listed in [`Report::problems`],
/// and the rest is kept.
///
/// ```
/// use janitor_runner::domain::report;
///
/// let report = report::read(br#"{"code": "build-failed", "stage": ["build", "compile"]}"#);
/// assert_eq!(report.code.as_str(), "build-failed");
/// assert_eq!(report.stage.as_deref(), Some("build/compile"));
/// assert!(report.problems.is_empty());
///
/// let broken = report::read(br#"{"code": "success", "value": "high"}"#);
/// assert_eq!(broken.problems[0].field, "value");
/// assert!(broken.code.is_success());
/// ```
pub fn read(bytes: &[u8]) -> Report {
    let parsed: Result<Value, _> = serde_json::from_slice(bytes);
    let (original, broken) = match parsed {
        Ok(value) if value.is_object() => (value, None),
        Ok(value) => (value, Some("is not a JSON object".to_owned())),
        Err(error) => (
            Value::String(String::from_utf8_lossy(bytes).into_owned()),
            Some(format!("is not JSON: {error}")),
        ),
    };
    let empty = Map::new();
    let mut fields = Fields {
        fields: original.as_object().unwrap_or(&empty),
        problems: vec![],
    };
    if let Some(reason) = broken {
        fields.fail("result.json", reason);
    }
    let (start_time, finish_time) = (fields.time("start_time"), fields.time("finish_time"));
    if start_time
        .zip(finish_time)
        .is_some_and(|(start, finish)| finish < start)
    {
        fields.fail("finish_time", "is before start_time");
    }
    let vcs_type = fields.text("vcs_type").filter(|t| !t.is_empty());
    Report {
        code: fields.code(),
        description: fields.text("description"),
        context: fields.text("context"),
        codemod: fields.json("codemod"),
        main_branch_revision: fields.text("main_branch_revision"),
        revision: fields.text("revision"),
        value: fields.number("value"),
        branches: fields.branches(),
        tags: fields.read("tags", "a list of [name, revision]"),
        remotes: fields.json("remotes"),
        details: fields.json("details"),
        stage: fields.stage(),
        target: fields.target(),
        start_time,
        finish_time,
        worker_name: fields.text("worker_name"),
        refreshed: fields.read("refreshed", "true or false").unwrap_or(false),
        branch_url: fields.text("branch_url"),
        target_branch_url: fields.text("target_branch_url"),
        vcs_type: vcs_type.and_then(|t| fields.ok_or_problem(t.parse())),
        subpath: fields.text("subpath"),
        transient: fields.read("transient", "true or false"),
        codebase: fields.text("codebase"),
        problems: fields.problems,
        original,
    }
}

impl Report {
    /// Validates the report against its active run, and adds the rules that it breaks to
    /// [`Report::problems`].
    pub fn validate_against(&mut self, codebase: &str, resume_from: Option<&RunId>) {
        if let Some(other) = self.codebase.as_ref().filter(|other| *other != codebase) {
            self.problems.push(Invalid::new(
                "codebase",
                format!("{other:?} is not the assignment's {codebase:?}"),
            ));
        }
        let resumed = resume_from.is_some() && !self.refreshed;
        if self.code.as_str() == super::run::NOTHING_NEW_TO_DO && !resumed {
            self.problems.push(Invalid::new(
                "code",
                "nothing-new-to-do needs a run that was resumed",
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn of(value: &Value) -> Report {
        read(value.to_string().as_bytes())
    }

    fn fields(report: &Report) -> Vec<&str> {
        report.problems.iter().map(|p| p.field.as_str()).collect()
    }

    #[test]
    fn missing_code_means_success_only_with_a_revision() {
        assert_eq!(of(&json!({"code": null})).code.as_str(), "success");
        assert_eq!(of(&json!({"revision": "r"})).code.as_str(), "success");
        assert_eq!(of(&json!({})).code.as_str(), "missing-result-code");
        assert_eq!(
            of(&json!({"code": "build-failed"})).code.as_str(),
            "build-failed"
        );
    }

    #[test]
    fn reports_of_both_generations_are_parsed() {
        let older = of(&json!({
            "code": "x",
            "start_time": "2026-01-02T03:04:05",
            "stage": "build/compile",
            "branches": [["main", null, "a", "b"]]
        }));
        let newer = of(&json!({
            "revision": "r",
            "start_time": "2026-01-02T03:04:05Z",
            "stage": ["build", "compile"],
            "value": 3.0,
            "branches": [],
            "tags": []
        }));
        assert_eq!(older.start_time, newer.start_time);
        assert_eq!(older.stage, newer.stage);
        assert_eq!(newer.value, Some(3));
        assert_eq!(older.problems, []);
        assert_eq!(newer.problems, []);
    }

    #[test]
    fn each_broken_rule_names_its_field() {
        let report = of(&json!({
            "code": 5,
            "value": "x",
            "branches": [["main", "a", "b", "c"], ["main", "a", "b", "c"]],
            "start_time": "2026-01-02T03:04:05",
            "finish_time": "2026-01-02T03:04:04",
            "transient": "yes",
            "stage": 7,
            "vcs_type": "rcs",
            "description": "a\0b",
            "target": []
        }));
        for field in [
            "code",
            "value",
            "branches",
            "finish_time",
            "transient",
            "stage",
            "vcs_type",
            "description",
            "target",
        ] {
            assert!(
                fields(&report).contains(&field),
                "{field} in {:?}",
                report.problems
            );
        }
        assert_eq!(fields(&read(b"{nonsense")), ["result.json"]);
        assert_eq!(fields(&of(&json!([1]))), ["result.json"]);
    }

    #[test]
    fn report_is_validated_against_its_active_run() {
        let mut report = of(&json!({"code": "nothing-new-to-do", "codebase": "other"}));
        report.validate_against("cb", None);
        assert_eq!(fields(&report), ["codebase", "code"]);
        let mut resumed = of(&json!({"code": "nothing-new-to-do", "codebase": "cb"}));
        resumed.validate_against("cb", Some(&RunId::new("earlier")));
        assert!(resumed.problems.is_empty());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&bytes);
        }
    }
}
