//! Reports: `result.json`, as both generations of workers write it, and as scripts do.

mod fields;
mod json;
mod refs;
mod repair;
mod reported_time;

use super::{
    Invalid,
    name::RunId,
    run::{ResultBranch, ResultCode, ResultTag},
    time::Time,
    vcs::VcsType,
};
use fields::{Fields, MAX_JSON, MAX_TEXT, cut_bytes};
use serde_json::{Map, Value};

/// The maximum length of a result code, in characters.
const MAX_CODE: usize = 100;
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
    /// The rules that the report breaks so that its code, revision or branches cannot be trusted.
    pub problems: Vec<Invalid>,
    /// What of the report was not understood, or changed. The rest of it counts.
    pub notes: Vec<Invalid>,
    /// The times as they were reported, as text.
    pub said_times: (Option<String>, Option<String>),
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

impl ReportTarget {
    /// Returns whether a package for Debian was built.
    pub fn is_debian(&self) -> bool {
        self.name == "debian"
    }
}

impl Fields<'_> {
    fn code(&mut self) -> ResultCode {
        match self.value("code") {
            Some(Value::String(code)) => {
                ResultCode::new(self.bounded_name("code", code.clone(), MAX_CODE))
            }
            Some(_) => {
                self.fail("code", "is not text");
                ResultCode::success()
            }
            None if self.is_null("code") || self.value("revision").is_some() => {
                ResultCode::success()
            }
            None => ResultCode::new("missing-result-code"),
        }
    }

    fn target(&mut self) -> Option<ReportTarget> {
        let target = self.value("target")?;
        let name = target.as_str().or_else(|| target.get("name")?.as_str());
        let Some(name) = name else {
            if !target.as_object().is_some_and(Map::is_empty) {
                self.note_value("target", target, "an object with a name");
            }
            return None;
        };
        let details = target.get("details").unwrap_or(&Value::Null);
        Some(ReportTarget {
            name: self.bounded_name("target", name.to_owned(), fields::MAX_NAME),
            details: self.bounded_json("target", details),
        })
    }

    fn vcs_type(&mut self) -> Option<VcsType> {
        let name = self.name("vcs_type").filter(|name| !name.is_empty())?;
        let known = name.to_ascii_lowercase().parse();
        known.map_err(|unknown| self.notes.push(unknown)).ok()
    }

    /// Returns a time as it was reported, as text.
    fn said(&self, field: &str) -> Option<String> {
        let said = match self.value(field)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some(said.chars().take(100).collect())
    }
}

/// Parses a report. No input makes this fail: what breaks a rule is listed in [`Report::problems`],
/// what is not understood in [`Report::notes`], and the rest is kept.
///
/// ```
/// use janitor_runner::domain::report;
///
/// let report = report::read(br#"{"code": "build-failed", "stage": ["build", "compile"]}"#);
/// assert_eq!(report.code.as_str(), "build-failed");
/// assert_eq!(report.stage.as_deref(), Some("build/compile"));
/// assert!(report.problems.is_empty());
///
/// let odd = report::read(br#"{"code": "success", "value": "high"}"#);
/// assert_eq!(odd.notes[0].field, "value");
/// assert!(odd.problems.is_empty());
///
/// let broken = report::read(br#"{"code": 5}"#);
/// assert_eq!(broken.problems[0].field, "code");
/// ```
pub fn read(bytes: &[u8]) -> Report {
    let (original, broken, changed) = match json::parsed(bytes) {
        Ok((value, changed)) if value.is_object() => (value, None, changed),
        Ok((value, _)) => (value, Some("is not a JSON object".to_owned()), false),
        Err(reason) => (json::start(bytes), Some(reason), false),
    };
    let empty = Map::new();
    let mut fields = Fields::new(original.as_object().unwrap_or(&empty));
    match broken {
        Some(reason) => fields.fail("result.json", reason),
        None if changed => fields.note(
            "result.json",
            "characters that cannot be kept were replaced",
        ),
        None => {}
    }
    let report = of_fields(fields);
    Report {
        original: bounded(original),
        ..report
    }
}

/// Returns the original report, shortened if it is too long to be kept.
fn bounded(original: Value) -> Value {
    let text = original.to_string();
    match text.len() > MAX_JSON {
        true => Value::String(cut_bytes(&text, MAX_TEXT).unwrap_or(text)),
        false => original,
    }
}

fn of_fields(mut fields: Fields<'_>) -> Report {
    let said_times = (fields.said("start_time"), fields.said("finish_time"));
    let revision = fields.revision("revision");
    Report {
        code: fields.code(),
        description: fields.free_text("description"),
        context: fields.free_text("context"),
        // An empty result of the codemod says as much as none.
        codemod: fields
            .json("codemod")
            .filter(|codemod| !codemod.as_object().is_some_and(Map::is_empty)),
        main_branch_revision: fields.revision("main_branch_revision"),
        value: fields.number("value"),
        branches: fields.branches(revision.as_deref()),
        tags: fields.tags(revision.as_deref()),
        revision,
        remotes: fields.json("remotes"),
        details: fields.json("details"),
        stage: fields.stage(),
        target: fields.target(),
        start_time: fields.time("start_time"),
        finish_time: fields.time("finish_time"),
        worker_name: fields.name("worker_name"),
        refreshed: fields.flag("refreshed").unwrap_or(false),
        branch_url: fields.location("branch_url"),
        target_branch_url: fields.location("target_branch_url"),
        vcs_type: fields.vcs_type(),
        subpath: fields.location("subpath"),
        transient: fields.flag("transient"),
        codebase: fields.location("codebase"),
        problems: fields.problems,
        notes: fields.notes,
        said_times,
        original: Value::Null,
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

    fn fields_of(problems: &[Invalid]) -> Vec<&str> {
        problems.iter().map(|p| p.field.as_str()).collect()
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
            "revision": ["r"],
            "branches": [["main", "a", "b", "c"], ["main", "a", "b", "d"]],
        }));
        assert_eq!(
            fields_of(&report.problems),
            ["revision", "code", "branches"]
        );
        assert_eq!(fields_of(&read(b"{nonsense").problems), ["result.json"]);
        assert_eq!(fields_of(&of(&json!([1])).problems), ["result.json"]);
        for branches in [
            json!("main"),
            json!(["main"]),
            json!([["main", "a", 5, "b"]]),
        ] {
            let report = of(&json!({"code": "success", "branches": branches}));
            assert_eq!(fields_of(&report.problems), ["branches"], "{branches}");
        }
    }

    #[test]
    fn what_is_not_understood_is_noted_and_the_rest_is_kept() {
        let report = of(&json!({
            "code": "success",
            "revision": "r2",
            "value": "x",
            "start_time": "yesterday",
            "finish_time": "2026-01-02T03:04:04",
            "transient": "perhaps",
            "stage": {},
            "vcs_type": "rcs",
            "description": "a\0b",
            "target": [],
            "subpath": ["x"],
            "tags": [5, "t1"],
        }));
        assert_eq!(report.problems, []);
        for field in [
            "value",
            "start_time",
            "transient",
            "stage",
            "vcs_type",
            "result.json",
            "target",
            "subpath",
            "tags",
        ] {
            let noted = fields_of(&report.notes);
            assert!(noted.contains(&field), "{field} in {:?}", report.notes);
        }
        assert_eq!(report.notes.len(), 9, "{:?}", report.notes);
        assert_eq!(report.description.as_deref(), Some("a\u{fffd}b"));
        assert_eq!(report.revision.as_deref(), Some("r2"));
        assert_eq!(report.said_times.0.as_deref(), Some("yesterday"));
        assert!(report.finish_time.is_some());
    }

    #[test]
    fn value_is_what_python_makes_of_it() {
        for (value, expected) in [
            (json!(7.9), Some(7)),
            (json!(-7.9), Some(-7)),
            (json!("5"), Some(5)),
            (json!(" 7.9 "), Some(7)),
            (json!(true), Some(1)),
            (json!(false), None),
            (json!(0), None),
            (json!("0"), None),
            (json!(""), None),
            (json!(3_000_000_000_i64), None),
        ] {
            let report = of(&json!({"code": "success", "value": value}));
            assert_eq!(report.value, expected, "{value}");
            assert_eq!(report.problems, [], "{value}");
        }
    }

    #[test]
    fn branches_of_other_forms_are_understood() {
        let of_entry = |entry: Value| {
            let report = of(&json!({"code": "success", "revision": "r2", "branches": [entry]}));
            assert_eq!(report.problems, []);
            let branch = report.branches.unwrap().remove(0);
            (branch.role, branch.name, branch.base, branch.revision)
        };
        let text = |text: &str| Some(text.to_owned());
        let full = ("main".to_owned(), text("gen"), text("r1"), text("r2"));
        assert_eq!(of_entry(json!(["main", "gen", "r1", "r2", "more"])), full);
        assert_eq!(
            of_entry(json!({"role": "main", "name": "gen", "base": "r1", "revision": "r2"})),
            full
        );
        assert_eq!(
            of_entry(json!(["main", "gen", "r1"])),
            ("main".to_owned(), text("gen"), text("r1"), None)
        );
        assert_eq!(
            of_entry(json!(["main", "gen", "r2"])),
            ("main".to_owned(), text("gen"), None, text("r2"))
        );
        let twice = json!([["main", null, "a", "b"], ["main", null, "a", "b"]]);
        let report = of(&json!({"code": "success", "branches": twice}));
        assert_eq!(report.branches.unwrap().len(), 1);
        assert_eq!(fields_of(&report.notes), ["branches"]);
    }

    #[test]
    fn tags_may_be_names_pairs_or_objects() {
        let report = of(&json!({
            "revision": "r2",
            "tags": ["t1", ["t2", "r1"], {"name": "t3", "revision": "r1"}, [null, "r1"]],
        }));
        let tags: Vec<(Option<String>, String)> =
            report.tags.unwrap().into_iter().map(Into::into).collect();
        let tag = |name: &str, revision: &str| (Some(name.to_owned()), revision.to_owned());
        assert_eq!(
            tags,
            [
                tag("t1", "r2"),
                tag("t2", "r1"),
                tag("t3", "r1"),
                (None, "r1".to_owned())
            ]
        );
        let mapped = of(&json!({"code": "x", "tags": {"t1": "r1"}}))
            .tags
            .unwrap();
        assert_eq!(mapped[0].name.as_deref(), Some("t1"));
        assert_eq!(of(&json!({"code": "x", "tags": ["t1"]})).tags.unwrap(), []);
    }

    #[test]
    fn context_may_be_json_and_transient_a_number() {
        let report = of(&json!({
            "code": "x", "context": {"applied": 3}, "description": ["a"], "transient": 1,
            "refreshed": "true", "stage": ["build", 2], "codemod": {}, "target": "generic",
        }));
        assert_eq!(report.context.as_deref(), Some(r#"{"applied":3}"#));
        assert_eq!(report.description.as_deref(), Some(r#"["a"]"#));
        assert_eq!(report.transient, Some(true));
        assert!(report.refreshed);
        assert_eq!(report.stage.as_deref(), Some("build/2"));
        assert_eq!(report.codemod, None);
        assert_eq!(report.target.unwrap().name, "generic");
        assert_eq!(report.notes, []);
    }

    #[test]
    fn long_text_is_cut_and_long_json_is_replaced() {
        let long = "ä".repeat(1 << 20);
        let report = of(&json!({
            "code": long, "description": long, "context": long, "stage": long,
            "details": {"x": long}, "codemod": long, "worker_name": long, "branch_url": long,
        }));
        assert_eq!(report.problems, []);
        assert_eq!(report.code.as_str().chars().count(), MAX_CODE);
        assert_eq!(report.stage.unwrap().chars().count(), 200);
        let description = report.description.unwrap();
        assert!(description.len() <= MAX_TEXT && description.ends_with("[cut]"));
        assert!(report.details.unwrap()["note"].is_string());
        assert!(report.codemod.unwrap()["note"].is_string());
        assert_eq!(report.branch_url, None);
        assert!(report.original.to_string().len() < 2 * MAX_TEXT);
        let revision = of(&json!({"code": "success", "revision": long}));
        assert_eq!(fields_of(&revision.problems), ["revision"]);
    }

    #[test]
    fn lone_surrogates_and_bytes_that_are_not_utf_8_are_replaced() {
        let report = read(b"{\"code\": \"success\", \"description\": \"a\\ud800b\xff\"}");
        assert_eq!(report.description.as_deref(), Some("a\u{fffd}b\u{fffd}"));
        assert_eq!(report.problems, []);
        assert_eq!(fields_of(&report.notes), ["result.json"]);
    }

    #[test]
    fn report_is_validated_against_its_active_run() {
        let mut report = of(&json!({"code": "nothing-new-to-do", "codebase": "other"}));
        report.validate_against("cb", None);
        assert_eq!(fields_of(&report.problems), ["codebase", "code"]);
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
