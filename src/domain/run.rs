//! Runs: finished attempts, which are never deleted.

use super::{
    name::{CampaignName, CodebaseName, RunId},
    publish::PublishStatus,
    queue::{QueueId, QueueKey},
    time::{Time, seconds_between},
    vcs::VcsType,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// The code of a failure of the worker itself, which is no evidence for the candidate after a day.
pub const WORKER_FAILURE: &str = "worker-failure";
/// The code of a run whose report broke a rule; the failure details say which.
pub const WORKER_INVALID_RESULT: &str = "worker-invalid-result";
/// The code of a run that resumed an earlier one and added nothing.
pub const NOTHING_NEW_TO_DO: &str = "nothing-new-to-do";
/// The code of a run that failed because of missing dependencies.
pub const UNSATISFIED_DEPENDENCIES: &str = "install-deps-unsatisfied-dependencies";

/// How a run ended: `success`, `nothing-to-do`, `nothing-new-to-do`; any other text is a failure.
///
/// ```
/// use janitor_runner::domain::run::ResultCode;
///
/// assert!(ResultCode::success().is_success());
/// assert!(!ResultCode::new("nothing-to-do").is_failure());
/// assert!(ResultCode::new("build-failed").is_failure());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResultCode(String);

impl ResultCode {
    /// Wraps the text of a code.
    pub fn new(code: impl Into<String>) -> Self {
        Self(code.into())
    }

    /// Returns the code `success`.
    pub fn success() -> Self {
        Self::new("success")
    }

    /// Returns the code as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether the code is `success`.
    pub fn is_success(&self) -> bool {
        self.0 == "success"
    }

    /// Returns whether the code is none of the three that are not failures.
    pub fn is_failure(&self) -> bool {
        !matches!(
            self.0.as_str(),
            "success" | "nothing-to-do" | NOTHING_NEW_TO_DO
        )
    }
}

impl fmt::Display for ResultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A branch of a result. In JSON: `[role, name, base revision, revision]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    from = "(Option<String>, Option<String>, Option<String>, Option<String>)",
    into = "(String, Option<String>, Option<String>, Option<String>)"
)]
pub struct ResultBranch {
    /// The role of the branch, such as `main`.
    pub role: String,
    /// The name of the branch.
    pub name: Option<String>,
    /// The revision that the run started from.
    pub base: Option<String>,
    /// The revision that the run ended with.
    pub revision: Option<String>,
}

impl
    From<(
        Option<String>,
        Option<String>,
        Option<String>,
        Option<String>,
    )> for ResultBranch
{
    fn from(
        (role, name, base, revision): (
            Option<String>,
            Option<String>,
            Option<String>,
            Option<String>,
        ),
    ) -> Self {
        Self {
            role: role.unwrap_or_default(),
            name,
            base,
            revision,
        }
    }
}

impl From<ResultBranch> for (String, Option<String>, Option<String>, Option<String>) {
    fn from(branch: ResultBranch) -> Self {
        (branch.role, branch.name, branch.base, branch.revision)
    }
}

/// A tag of a result. In JSON: `[name, revision]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(Option<String>, String)", into = "(Option<String>, String)")]
pub struct ResultTag {
    /// The name of the tag.
    pub name: Option<String>,
    /// The tagged revision.
    pub revision: String,
}

impl From<(Option<String>, String)> for ResultTag {
    fn from((name, revision): (Option<String>, String)) -> Self {
        Self { name, revision }
    }
}

impl From<ResultTag> for (Option<String>, String) {
    fn from(tag: ResultTag) -> Self {
        (tag.name, tag.revision)
    }
}

/// A Debian package that a run built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DebianPackage {
    /// The name of the source package.
    pub source: String,
    /// The version that was built.
    pub version: String,
    /// The distribution that it was built for.
    pub distribution: String,
    /// The names of the `.changes` files.
    pub changes_filenames: Vec<String>,
    /// The names of the binary packages.
    pub binary_packages: Vec<String>,
    /// What lintian reported.
    pub lintian: Option<Value>,
}

/// The build target of a run, with what was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// The codebase's own build.
    Generic {
        /// What the worker reported about the build.
        details: Value,
    },
    /// A Debian package.
    Debian(DebianPackage),
}

/// A finished attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// The id, which is that of its active run.
    pub id: RunId,
    /// The id of its queue item.
    pub queue_id: QueueId,
    /// The codebase.
    pub codebase: CodebaseName,
    /// The campaign.
    pub campaign: CampaignName,
    /// The change set; the run's own id when it belongs to no other.
    pub change_set: String,
    /// The command that was run.
    pub command: String,
    /// The result code.
    pub code: ResultCode,
    /// The result in words.
    pub description: Option<String>,
    /// The start of the run.
    #[serde(with = "super::time::as_iso")]
    pub start_time: Time,
    /// The end of the run.
    #[serde(with = "super::time::as_iso")]
    pub finish_time: Time,
    /// The context that the run was queued with.
    pub instigated_context: Option<String>,
    /// The context that the codemod reported.
    pub context: Option<String>,
    /// The revision of the main branch that the run started from.
    pub main_branch_revision: Option<String>,
    /// The revision that the run ended with.
    pub revision: Option<String>,
    /// What the codemod reported about its result.
    pub codemod: Option<Value>,
    /// The value of the change, by the codemod.
    pub value: Option<i32>,
    /// The version control system of the codebase.
    pub vcs_type: Option<VcsType>,
    /// The branch URL of the codebase at that time.
    pub branch_url: Option<String>,
    /// The folder in the branch.
    pub subpath: Option<String>,
    /// The URL of the branch that the change is meant for, if it is another.
    pub target_branch_url: Option<String>,
    /// The name of the worker.
    pub worker: Option<String>,
    /// The URL of a page about the worker's job.
    pub worker_link: Option<String>,
    /// The stage that failed, its parts joined by slashes.
    pub failure_stage: Option<String>,
    /// Details of the failure, as the worker reported them.
    pub failure_details: Option<Value>,
    /// Whether a repeat is expected to succeed where this run failed.
    pub transient: Option<bool>,
    /// The run that this one resumed from.
    pub resume_from: Option<RunId>,
    /// The branches of the result.
    pub branches: Option<Vec<ResultBranch>>,
    /// The tags of the result.
    pub tags: Option<Vec<ResultTag>>,
    /// The remote repositories that the worker reported.
    pub remotes: Option<Value>,
    /// What was built.
    pub target: Option<Target>,
    /// The decision about publishing the result.
    pub publish_status: PublishStatus,
    /// The names of the uploaded files, in the order of the upload.
    pub filenames: Vec<String>,
    /// The names of the logs among them.
    pub logfilenames: Vec<String>,
    /// The names of the files kept as artifacts; `None` when there was no target.
    pub artifacts: Option<Vec<String>>,
    /// Whether the runner abandoned the run because its worker was silent. A late result may still
    /// replace it. The name is that of the stored field.
    #[serde(default)]
    pub given_up: bool,
    /// What its report said that is stored otherwise, or not at all.
    #[serde(default)]
    pub report: ReportFacts,
}

/// What a report said that is stored otherwise, or not at all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReportFacts {
    /// The start of the run by the worker's clock, as it was reported.
    pub start_time: Option<String>,
    /// The end of the run by the worker's clock, as it was reported.
    pub finish_time: Option<String>,
    /// Start and end as reported, when the response to the worker repeats them.
    pub repeated_times: Option<(String, String)>,
    /// What of the report and its files was not understood, was changed or left out.
    pub notes: Vec<String>,
}

impl Run {
    /// Returns the duration, in seconds.
    pub fn duration(&self) -> f64 {
        seconds_between(self.start_time, self.finish_time)
    }

    /// Returns whether a repeat is expected to cure the failure.
    pub fn is_transient(&self) -> bool {
        self.transient.unwrap_or(false)
    }

    /// Returns the key of its queue item. A run in a change set of its own was queued without one.
    pub fn key(&self) -> QueueKey {
        let change_set = (self.change_set != self.id.as_str()).then(|| self.change_set.clone());
        QueueKey {
            codebase: self.codebase.clone(),
            campaign: self.campaign.clone(),
            change_set,
        }
    }
}

/// The fields of a run that decide which run of a pair is the last effective one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunBrief {
    /// The id.
    pub id: RunId,
    /// The start of the run.
    #[serde(with = "super::time::as_iso")]
    pub start_time: Time,
    /// The result code.
    pub code: ResultCode,
    /// Whether the run failed transiently.
    pub transient: bool,
    /// The run that this one resumed from.
    pub resume_from: Option<RunId>,
}

/// Returns the last effective run: the last by start time; when that is `nothing-new-to-do`, the
/// run that it resumed from; when it says that it is transient, the latest that is neither transient
/// nor `nothing-new-to-do`.
pub fn last_effective(runs: &[RunBrief]) -> Option<RunId> {
    let latest = |runs: &mut dyn Iterator<Item = &RunBrief>| {
        runs.max_by(|a, b| (a.start_time, &a.id).cmp(&(b.start_time, &b.id)))
            .cloned()
    };
    let last = latest(&mut runs.iter())?;
    let nothing_new = |run: &RunBrief| run.code.as_str() == NOTHING_NEW_TO_DO;
    if nothing_new(&last) {
        return last.resume_from;
    }
    if last.transient {
        return latest(
            &mut runs
                .iter()
                .filter(|run| !run.transient && !nothing_new(run)),
        )
        .map(|run| run.id);
    }
    Some(last.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brief(id: &str, minute: u32, code: &str, transient: bool, resume: Option<&str>) -> RunBrief {
        RunBrief {
            id: RunId::new(id),
            start_time: super::super::time::parse("t", &format!("2026-01-01T00:{minute:02}:00"))
                .unwrap(),
            code: ResultCode::new(code),
            transient,
            resume_from: resume.map(RunId::new),
        }
    }

    #[test]
    fn last_effective_run_skips_runs_that_changed_nothing() {
        let of = |runs: &[RunBrief]| last_effective(runs).map(|id| id.to_string());
        assert_eq!(of(&[]), None);
        let one = brief("one", 1, "success", false, None);
        assert_eq!(of(std::slice::from_ref(&one)).unwrap(), "one");
        assert_eq!(
            of(&[brief("two", 2, "failed", false, None), one.clone()]).unwrap(),
            "two"
        );
        assert_eq!(
            of(&[
                one.clone(),
                brief("two", 2, "nothing-new-to-do", false, Some("one"))
            ])
            .unwrap(),
            "one"
        );
        assert_eq!(
            of(&[one.clone(), brief("two", 2, "worker-timeout", true, None)]).unwrap(),
            "one"
        );
        assert_eq!(of(&[brief("two", 2, "worker-timeout", true, None)]), None);
        // A success that says it is transient is skipped like a failure that does.
        assert_eq!(
            of(&[one.clone(), brief("two", 2, "success", true, None)]).unwrap(),
            "one"
        );
    }

    #[test]
    fn branches_are_tuples_in_json() {
        let branch: ResultBranch = serde_json::from_str(r#"["main","gen","r1","r2"]"#).unwrap();
        assert_eq!(
            serde_json::to_string(&branch).unwrap(),
            r#"["main","gen","r1","r2"]"#
        );
    }
}
