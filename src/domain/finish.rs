//! How an active run becomes a run: by the report of its worker, or because the runner ends it.

use super::{
    Invalid,
    active_run::ActiveRun,
    changes::Changes,
    publish::PublishStatus,
    report::{Report, ReportTarget},
    run::{DebianPackage, ResultCode, Run, Target, WORKER_INVALID_RESULT},
    time::{Time, micros},
};
use serde_json::{Value, json};

/// The code of a run whose campaign is not configured.
pub const UNKNOWN_CAMPAIGN: &str = "unknown-campaign";
/// The code of a run whose codebase has no branch, in a campaign that needs one.
pub const NOT_IN_VCS: &str = "not-in-vcs";
/// The code of a run whose build target the runner does not support.
pub const UNSUPPORTED_BUILD_TARGET: &str = "unsupported-build-target";
/// The code of a run whose artifacts could not be stored.
pub const ARTIFACT_UPLOAD_FAILED: &str = "artifact-upload-failed";

/// The names of the uploaded files, by kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UploadedFiles {
    /// The logs.
    pub logs: Vec<String>,
    /// The files that are not logs.
    pub others: Vec<String>,
    /// All files, in the order of the upload.
    pub all: Vec<String>,
    /// The contents of the `.changes` files, merged.
    pub changes: Option<Changes>,
    /// The names of the `.changes` files.
    pub changes_filenames: Vec<String>,
}

impl Run {
    /// Creates a run that ended at `now` and of which nothing was reported.
    fn empty(run: &ActiveRun, code: ResultCode, now: Time) -> Self {
        let key = run.key();
        Self {
            id: run.id.clone(),
            queue_id: run.item.id,
            codebase: key.codebase.clone(),
            campaign: key.campaign.clone(),
            change_set: key.change_set.clone().unwrap_or_else(|| run.id.to_string()),
            command: run.item.command.clone(),
            code,
            description: None,
            start_time: micros(run.start_time),
            finish_time: micros(now.max(run.start_time)),
            instigated_context: run.item.context.clone(),
            context: None,
            main_branch_revision: None,
            revision: None,
            codemod: None,
            value: None,
            vcs_type: run.vcs.vcs_type,
            branch_url: run.vcs.branch_url.clone(),
            subpath: run.vcs.subpath.clone(),
            target_branch_url: None,
            worker: run.claimant.worker.clone(),
            worker_link: run.claimant.worker_link.clone(),
            failure_stage: None,
            failure_details: None,
            transient: None,
            resume_from: run.resume_from.clone(),
            branches: None,
            tags: None,
            remotes: None,
            target: None,
            publish_status: PublishStatus::Unknown,
            filenames: vec![],
            logfilenames: vec![],
            artifacts: None,
            given_up: false,
        }
    }
}

/// Returns the run that an active run becomes when the runner itself ends it.
pub fn end(run: &ActiveRun, code: &str, description: String, transient: bool, now: Time) -> Run {
    Run {
        description: Some(description),
        transient: Some(transient),
        ..Run::empty(run, ResultCode::new(code), now)
    }
}

/// Returns the run of a worker that vanished: a failure that a repeat may cure, and that a late
/// result may replace.
pub fn vanished(run: &ActiveRun, code: &str, description: String, now: Time) -> Run {
    Run {
        given_up: true,
        ..end(run, code, description, true, now)
    }
}

/// What a report and its files say about the build target.
#[derive(Default)]
struct TargetOutcome {
    /// What was built.
    target: Option<Target>,
    /// The artifacts to keep.
    artifacts: Option<Vec<String>>,
    /// Why the target is not supported.
    unsupported: Option<String>,
    /// The rule that the files break.
    problem: Option<Invalid>,
}

fn resolve_target(target: Option<&ReportTarget>, files: &UploadedFiles) -> TargetOutcome {
    let Some(target) = target else {
        return TargetOutcome::default();
    };
    match target.name.as_str() {
        "generic" => TargetOutcome {
            target: Some(Target::Generic {
                details: target.details.clone(),
            }),
            artifacts: Some(files.others.clone()),
            ..TargetOutcome::default()
        },
        "debian" => debian(target, files),
        other => TargetOutcome {
            unsupported: Some(format!(
                "the runner does not accept results for the target {other:?}"
            )),
            ..TargetOutcome::default()
        },
    }
}

fn debian(target: &ReportTarget, files: &UploadedFiles) -> TargetOutcome {
    let Some(changes) = &files.changes else {
        return TargetOutcome {
            artifacts: Some(vec![]),
            ..TargetOutcome::default()
        };
    };
    let missing = changes
        .files
        .iter()
        .find(|file| !files.others.contains(file));
    if let Some(missing) = missing {
        return TargetOutcome {
            problem: Some(Invalid::new(
                "target",
                format!(".changes lists {missing:?}, which was not uploaded"),
            )),
            ..TargetOutcome::default()
        };
    }
    let lintian = target
        .details
        .get("lintian")
        .filter(|l| !l.is_null())
        .cloned();
    let package = DebianPackage {
        source: changes.source.clone(),
        version: changes.version.clone(),
        distribution: changes.distribution.clone(),
        changes_filenames: files.changes_filenames.clone(),
        binary_packages: changes.binary_packages.clone(),
        lintian,
    };
    let artifacts = changes
        .files
        .iter()
        .chain(&files.changes_filenames)
        .cloned()
        .collect();
    TargetOutcome {
        target: Some(Target::Debian(package)),
        artifacts: Some(artifacts),
        ..TargetOutcome::default()
    }
}

/// Returns the run that an active run becomes by the report of its worker. A report that breaks a
/// rule becomes a failed run with the original report in its failure details, so that nothing is
/// lost.
pub fn conclude(active: &ActiveRun, mut report: Report, files: &UploadedFiles, now: Time) -> Run {
    report.validate_against(active.key().codebase.as_str(), active.resume_from.as_ref());
    let outcome = resolve_target(report.target.as_ref(), files);
    report.problems.extend(outcome.problem);
    let broken = !report.problems.is_empty();
    let base = Run::empty(active, report.code.clone(), now);
    let mut run = Run {
        description: report.description,
        context: report.context,
        main_branch_revision: report.main_branch_revision,
        revision: report.revision,
        codemod: report.codemod,
        value: report.value,
        vcs_type: report.vcs_type.or(base.vcs_type),
        branch_url: report.branch_url.or_else(|| base.branch_url.clone()),
        subpath: report.subpath.or_else(|| base.subpath.clone()),
        target_branch_url: report.target_branch_url,
        failure_stage: report.stage,
        failure_details: report.details,
        transient: report.transient,
        resume_from: base.resume_from.clone().filter(|_| !report.refreshed),
        branches: report.branches,
        tags: report.tags,
        remotes: report.remotes,
        target: outcome.target,
        filenames: files.all.clone(),
        logfilenames: files.logs.clone(),
        artifacts: outcome.artifacts,
        ..base
    };
    // The times of a broken report are not trusted: they may be what is broken.
    if !broken {
        run.start_time = report.start_time.unwrap_or(run.start_time);
        run.finish_time = report
            .finish_time
            .unwrap_or(run.finish_time)
            .max(run.start_time);
    }
    if let Some(why) = outcome.unsupported {
        run = failed(run, UNSUPPORTED_BUILD_TARGET, why);
    }
    if broken {
        run = invalid(run, &report.problems, &report.original);
    }
    run
}

/// Returns the run with another, failing code.
pub fn failed(run: Run, code: &str, description: String) -> Run {
    Run {
        code: ResultCode::new(code),
        description: Some(description),
        ..run
    }
}

/// Returns the run of a report that broke rules, with the problems and the report in its details.
pub fn invalid(run: Run, problems: &[Invalid], original: &Value) -> Run {
    let reasons: Vec<String> = problems.iter().map(ToString::to_string).collect();
    // Stores cannot keep NUL bytes, not even inside JSON.
    let original: Value = serde_json::from_str(&original.to_string().replace("\\u0000", "\\ufffd"))
        .unwrap_or(Value::Null);
    let details = json!({ "problems": reasons, "report": original });
    Run {
        failure_details: Some(details),
        ..failed(run, WORKER_INVALID_RESULT, reasons.join("; "))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::domain::{
        active_run::Claimant,
        name::{CampaignName, CodebaseName, RunId},
        queue::{Bucket, QueueItem, QueueKey},
        report, time,
    };

    pub(crate) fn item() -> QueueItem {
        QueueItem {
            id: 7,
            key: QueueKey {
                codebase: CodebaseName::new("cb").unwrap(),
                campaign: CampaignName::new("gen").unwrap(),
                change_set: None,
            },
            bucket: Bucket::Default,
            priority: 0,
            command: "true".into(),
            context: None,
            estimated_duration: None,
            refresh: false,
            requester: None,
        }
    }

    fn start() -> Time {
        time::parse("t", "2026-01-02T03:00:00").unwrap()
    }

    fn concluded(report: &Value, files: &UploadedFiles) -> Run {
        let mut active = ActiveRun::new(
            RunId::new("r1"),
            "t".into(),
            item(),
            Claimant::default(),
            start(),
        );
        active.resume_from = Some(RunId::new("r0"));
        conclude(
            &active,
            report::read(report.to_string().as_bytes()),
            files,
            start() + chrono::TimeDelta::minutes(5),
        )
    }

    #[test]
    fn run_without_a_change_set_gets_its_own() {
        let run = concluded(&json!({"code": "success"}), &UploadedFiles::default());
        assert_eq!(run.change_set, "r1");
        assert_eq!(run.key().change_set, None);
        assert!((run.duration() - 300.0).abs() < 1e-9);
        assert_eq!(run.artifacts, None);
        assert_eq!(run.resume_from, Some(RunId::new("r0")));
    }

    #[test]
    fn refreshed_run_has_no_run_it_resumed_from() {
        assert_eq!(
            concluded(
                &json!({"code": "success", "refreshed": true}),
                &UploadedFiles::default()
            )
            .resume_from,
            None
        );
    }

    #[test]
    fn generic_result_keeps_all_files_but_the_logs() {
        let files = UploadedFiles {
            others: vec!["a.tar".into()],
            logs: vec!["w.log".into()],
            ..Default::default()
        };
        let run = concluded(
            &json!({"revision": "r", "target": {"name": "generic", "details": {"x": 1}}}),
            &files,
        );
        assert_eq!(run.artifacts.unwrap(), ["a.tar"]);
        assert_eq!(run.logfilenames, ["w.log"]);
        assert_eq!(
            run.target,
            Some(Target::Generic {
                details: json!({"x": 1})
            })
        );
    }

    #[test]
    fn broken_report_is_kept_whole() {
        let original = json!({
            "code": "success",
            "start_time": "2026-01-02T03:05:00",
            "finish_time": "2026-01-02T03:04:00",
            "revision": "r",
            "description": "a\0"
        });
        let run = concluded(&original, &UploadedFiles::default());
        assert_eq!(run.code.as_str(), WORKER_INVALID_RESULT);
        let details = run.failure_details.unwrap();
        assert!(
            details["problems"][0]
                .as_str()
                .unwrap()
                .starts_with("finish_time")
        );
        assert_eq!(details["report"]["description"], "a\u{fffd}");
        assert!(run.finish_time >= run.start_time);
    }

    #[test]
    fn unknown_target_fails_the_run_and_keeps_no_artifacts() {
        let run = concluded(
            &json!({"code": "success", "target": {"name": "rpm"}}),
            &UploadedFiles::default(),
        );
        assert_eq!(run.code.as_str(), UNSUPPORTED_BUILD_TARGET);
        assert_eq!(run.artifacts, None);
    }

    #[test]
    fn changes_file_listing_a_missing_file_is_invalid() {
        let changes = Changes {
            source: "h".into(),
            version: "1".into(),
            distribution: "d".into(),
            binary_packages: vec![],
            files: vec!["h.deb".into()],
        };
        let mut files = UploadedFiles {
            changes: Some(changes),
            changes_filenames: vec!["h.changes".into()],
            others: vec!["h.changes".into()],
            ..Default::default()
        };
        let report = json!({"code": "success", "target": {"name": "debian", "details": {}}});
        let run = concluded(&report, &files);
        assert_eq!(run.code.as_str(), WORKER_INVALID_RESULT);
        assert_eq!(run.artifacts, None);
        files.others.push("h.deb".into());
        assert_eq!(
            concluded(&report, &files).artifacts.unwrap(),
            ["h.deb", "h.changes"]
        );
    }
}
