//! Runs: finished attempts, stored for good.

use super::{
    name::{CampaignName, CodebaseName, RunId},
    publish::PublishStatus,
    queue::{QueueId, QueueKey},
    schedule::PastRun,
    time::{Time, seconds_between},
    vcs::VcsType,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::fmt;

/// A failure of the worker itself: says nothing of the candidate after a day.
pub const WORKER_FAILURE: &str = "worker-failure";
/// The report broke a rule; what was wrong is in the failure details.
pub const WORKER_INVALID_RESULT: &str = "worker-invalid-result";
/// Resumed, and nothing was added.
pub const NOTHING_NEW_TO_DO: &str = "nothing-new-to-do";
/// Failed for want of dependencies.
pub const UNSATISFIED_DEPENDENCIES: &str = "install-deps-unsatisfied-dependencies";

/// How a run ended: `success`, `nothing-to-do`, `nothing-new-to-do`; any other text is a failure.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ResultCode(String);

impl ResultCode {
    /// Wraps a code.
    pub fn new(code: impl Into<String>) -> Self {
        Self(code.into())
    }

    /// The code for a run that did what it was to do.
    pub fn success() -> Self {
        Self::new("success")
    }

    /// The code as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is `success`.
    pub fn is_success(&self) -> bool {
        self.0 == "success"
    }

    /// Whether it is none of the three that are not failures.
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
#[expect(missing_docs)]
pub struct ResultBranch {
    pub role: String,
    pub name: Option<String>,
    pub base: Option<String>,
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
#[expect(missing_docs)]
pub struct ResultTag {
    pub name: Option<String>,
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
#[expect(missing_docs)]
pub struct DebianPackage {
    pub source: String,
    pub version: String,
    pub distribution: String,
    pub changes_filenames: Vec<String>,
    pub binary_packages: Vec<String>,
    pub lintian: Option<Value>,
}

/// What the run was to make, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs)]
pub enum Target {
    Generic { details: Value },
    Debian(DebianPackage),
}

/// A finished attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs)]
pub struct Run {
    pub id: RunId,
    pub queue_id: QueueId,
    pub codebase: CodebaseName,
    pub campaign: CampaignName,
    /// The run's own id when it belongs to no other change set.
    pub change_set: String,
    pub command: String,
    pub code: ResultCode,
    pub description: Option<String>,
    #[serde(with = "super::time::as_iso")]
    pub start_time: Time,
    #[serde(with = "super::time::as_iso")]
    pub finish_time: Time,
    pub instigated_context: Option<String>,
    pub context: Option<String>,
    pub main_branch_revision: Option<String>,
    pub revision: Option<String>,
    /// What the codemod reported of itself.
    pub codemod: Option<Value>,
    pub value: Option<i32>,
    pub vcs_type: Option<VcsType>,
    pub branch_url: Option<String>,
    pub subpath: Option<String>,
    pub target_branch_url: Option<String>,
    pub worker: Option<String>,
    pub worker_link: Option<String>,
    pub failure_stage: Option<String>,
    pub failure_details: Option<Value>,
    pub transient: Option<bool>,
    pub resume_from: Option<RunId>,
    pub branches: Option<Vec<ResultBranch>>,
    pub tags: Option<Vec<ResultTag>>,
    pub remotes: Option<Value>,
    pub target: Option<Target>,
    pub publish_status: PublishStatus,
    /// The files of the upload, in its order.
    pub filenames: Vec<String>,
    pub logfilenames: Vec<String>,
    /// The files kept as artifacts; none when there was no target.
    pub artifacts: Option<Vec<String>>,
    /// The runner ended it since its worker was silent; a result that comes late may still take its place.
    #[serde(default)]
    pub given_up: bool,
}

impl Run {
    /// Seconds from start to finish.
    pub fn duration(&self) -> f64 {
        seconds_between(self.start_time, self.finish_time)
    }

    /// Whether a repeat is expected to cure the failure.
    pub fn is_transient(&self) -> bool {
        self.transient.unwrap_or(false)
    }

    /// What the queue item was of; a run in its own change set had none.
    pub fn key(&self) -> QueueKey {
        let change_set = (self.change_set != self.id.as_str()).then(|| self.change_set.clone());
        QueueKey {
            codebase: self.codebase.clone(),
            campaign: self.campaign.clone(),
            change_set,
        }
    }

    /// What later schedules need to know of it.
    pub fn past(&self) -> PastRun {
        PastRun {
            code: self.code.clone(),
            start_time: self.start_time,
            duration: self.duration(),
            instigated_context: self.instigated_context.clone(),
            context: self.context.clone(),
            dependencies_satisfied_now: false,
        }
    }
}

/// The parts of a run that tell which run of a pair is the last effective one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs)]
pub struct RunBrief {
    pub id: RunId,
    #[serde(with = "super::time::as_iso")]
    pub start_time: Time,
    pub code: ResultCode,
    pub transient: bool,
    pub resume_from: Option<RunId>,
}

/// The last effective run: the last by start time; when that is `nothing-new-to-do`, the run it resumed from; when it
/// failed transiently, the latest that is neither transient nor `nothing-new-to-do`.
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
    if last.transient && last.code.is_failure() {
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
    fn the_last_effective_run_looks_through_what_changes_nothing() {
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
    }

    #[test]
    fn branches_are_tuples_on_the_wire() {
        let branch: ResultBranch = serde_json::from_str(r#"["main","gen","r1","r2"]"#).unwrap();
        assert_eq!(
            serde_json::to_string(&branch).unwrap(),
            r#"["main","gen","r1","r2"]"#
        );
    }
}
