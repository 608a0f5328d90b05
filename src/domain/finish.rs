//! How an active run becomes a run: by the report of its worker, or because the runner ends it.

pub use super::{
    termination::{NOT_IN_VCS, UNKNOWN_CAMPAIGN, UNSUPPORTED_BUILD_TARGET},
    uploaded::UploadedFiles,
};

use super::{
    Invalid,
    active_run::ActiveRun,
    publish::PublishStatus,
    report::{Report, ReportTarget},
    run::{ReportFacts, ResultCode, Run, WORKER_INVALID_RESULT},
    termination::{Abandonment, Termination, TerminationReason},
    time::{Time, iso, micros},
    uploaded::resolve_target,
    worker_clock,
};
use serde_json::{Value, json};

/// The code of a run whose artifacts could not be stored.
pub const ARTIFACT_UPLOAD_FAILED: &str = "artifact-upload-failed";
/// The code of a run some of whose artifacts cannot be accepted; the others are kept.
pub const ARTIFACT_INVALID: &str = "artifact-invalid";

/// The number of reasons that the description of a failed run lists.
const MAX_REASONS: usize = 10;

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
            report: ReportFacts::default(),
        }
    }
}

/// Returns the run that an active run becomes when the runner itself ends it.
pub fn end(run: &ActiveRun, code: &str, description: String, transient: bool, now: Time) -> Run {
    let reason = TerminationReason::of(run, code, now);
    Run {
        description: Some(description),
        transient: Some(transient),
        failure_details: Some(Termination::new(run, reason, now).details()),
        ..Run::empty(run, ResultCode::new(code), now)
    }
}

/// Returns the run of a worker that vanished: a failure that a repeat may cure, and that a late
/// result may replace.
pub fn vanished(run: &ActiveRun, how: Abandonment, now: Time) -> Run {
    let details = Termination::new(run, how.reason, now).details();
    Run {
        given_up: true,
        failure_details: Some(details),
        ..end(run, how.code, how.description, true, now)
    }
}

/// Returns the run that an active run becomes by the report of its worker. A report whose code,
/// revision or branches cannot be trusted becomes a failed run with the original report in its
/// failure details, so that nothing is lost.
pub fn conclude(active: &ActiveRun, mut report: Report, files: &UploadedFiles, now: Time) -> Run {
    report.validate_against(active.key().codebase.as_str(), active.resume_from.as_ref());
    let outcome = resolve_target(report.target.as_ref(), files);
    report.problems.extend(outcome.problem);
    let base = Run::empty(active, report.code.clone(), now);
    let notes = notes_of(&report, files);
    let mut lost: Vec<Invalid> = files.refused.clone().into_iter().collect();
    // Without a build, no artifact is kept anyway.
    if report.target.is_some() {
        lost.extend(files.left_out.iter().cloned());
    }
    if report.target.as_ref().is_some_and(ReportTarget::is_debian) {
        lost.extend(files.unread_changes.iter().cloned());
    }
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
    let said = (report.start_time, report.finish_time);
    run = with_times(run, said, report.said_times, active.start_time, now);
    if let Some(why) = outcome.unsupported {
        run = failed(run, UNSUPPORTED_BUILD_TARGET, why);
    } else if !lost.is_empty() && !run.code.is_failure() {
        run = failed(run, ARTIFACT_INVALID, sentence(&lost));
    }
    if run.code.is_failure() && active.cancel.is_some() {
        let killed = Termination {
            log_bytes: files.log_bytes,
            ..Termination::new(active, TerminationReason::Killed, now)
        };
        run = with_details(run, killed.details());
    }
    run = with_notes(run, notes);
    if !report.problems.is_empty() {
        run = invalid(run, &report.problems, &report.original);
    }
    run
}

/// Returns all that is to be noted about a report and its files.
fn notes_of(report: &Report, files: &UploadedFiles) -> Vec<String> {
    let all = report
        .notes
        .iter()
        .chain(&files.notes)
        .chain(&files.left_out)
        .chain(&files.unread_changes)
        .chain(&files.refused);
    all.map(ToString::to_string).collect()
}

fn sentence(problems: &[Invalid]) -> String {
    let reasons: Vec<String> = problems
        .iter()
        .take(MAX_REASONS)
        .map(ToString::to_string)
        .collect();
    match problems.len().saturating_sub(MAX_REASONS) {
        0 => reasons.join("; "),
        more => format!("{}; and {more} more", reasons.join("; ")),
    }
}

/// Returns the run with the times that its worker reported, as far as they are believed.
fn with_times(
    mut run: Run,
    (start, finish): (Option<Time>, Option<Time>),
    (said_start, said_finish): (Option<String>, Option<String>),
    claim: Time,
    receipt: Time,
) -> Run {
    let period = worker_clock::fit(start, finish, claim, receipt);
    if period.is_replayed {
        run.report.repeated_times = start
            .zip(finish)
            .map(|(start, finish)| (iso(start), iso(finish)));
    }
    // Kept only where they differ from what is stored.
    run.report.start_time = said_start.filter(|_| start != Some(period.start));
    run.report.finish_time = said_finish.filter(|_| finish != Some(period.finish));
    run.start_time = period.start;
    run.finish_time = period.finish;
    run
}

/// Returns the run with notes about its report; those about a failure are in its details too, where
/// everybody reads them.
fn with_notes(mut run: Run, notes: Vec<String>) -> Run {
    if run.code.is_failure() && !notes.is_empty() {
        run = with_details(run, json!({ "report_notes": notes }));
    }
    run.report.notes = notes;
    run
}

/// Returns the run with more failure details than its worker reported. Details of the worker that
/// are no object are kept as `details`.
fn with_details(mut run: Run, more: Value) -> Run {
    let mut details = match run.failure_details.take() {
        Some(Value::Object(details)) => details,
        None => serde_json::Map::new(),
        Some(other) => [("details".to_owned(), other)].into_iter().collect(),
    };
    if let Value::Object(more) = more {
        details.extend(more);
    }
    run.failure_details = Some(Value::Object(details));
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
    let mut details = json!({ "problems": reasons, "report": original });
    if !run.report.notes.is_empty() {
        details["report_notes"] = json!(run.report.notes);
    }
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
        changes::Changes,
        name::{CampaignName, CodebaseName, RunId},
        queue::{Bucket, QueueItem, QueueKey},
        report,
        run::Target,
        time,
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
            "code": "nothing-new-to-do",
            "refreshed": true,
            "revision": "r",
            "description": "a\0"
        });
        let run = concluded(&original, &UploadedFiles::default());
        assert_eq!(run.code.as_str(), WORKER_INVALID_RESULT);
        let details = run.failure_details.unwrap();
        assert!(details["problems"][0].as_str().unwrap().starts_with("code"));
        assert_eq!(details["report"]["description"], "a\u{fffd}");
        assert_eq!(run.revision.as_deref(), Some("r"));
    }

    #[test]
    fn clock_of_a_worker_is_not_believed_but_kept() {
        let report = json!({
            "code": "success",
            "start_time": "1970-01-01T00:00:00",
            "finish_time": "2099-01-01T00:00:00",
            "value": "high"
        });
        let run = concluded(&report, &UploadedFiles::default());
        assert_eq!(run.start_time, start());
        assert!((run.duration() - 300.0).abs() < 1e-9);
        assert_eq!(
            run.report.start_time.as_deref(),
            Some("1970-01-01T00:00:00")
        );
        assert_eq!(
            run.report.finish_time.as_deref(),
            Some("2099-01-01T00:00:00")
        );
        assert_eq!(run.report.notes.len(), 1);
        assert!(run.code.is_success());
        assert_eq!(run.failure_details, None);
    }

    #[test]
    fn notes_are_among_the_details_of_a_failure() {
        let of = |details: Value| {
            let report = json!({"code": "failed", "value": "high", "details": details});
            concluded(&report, &UploadedFiles::default())
                .failure_details
                .unwrap()
        };
        assert!(of(Value::Null)["report_notes"][0].is_string());
        assert_eq!(of(json!({"why": 1}))["why"], 1);
        assert_eq!(of(json!(["x"]))["details"], json!(["x"]));
    }

    #[test]
    fn artifacts_that_are_left_out_fail_the_run_and_keep_its_report() {
        let files = UploadedFiles {
            others: vec!["a.tar".into()],
            left_out: vec![Invalid::new("b.tar", "is too large")],
            ..Default::default()
        };
        let target = json!({"name": "generic"});
        let run = concluded(
            &json!({"code": "success", "revision": "r", "target": target}),
            &files,
        );
        assert_eq!(run.code.as_str(), ARTIFACT_INVALID);
        assert_eq!(run.description.as_deref(), Some("b.tar: is too large"));
        assert_eq!(run.revision.as_deref(), Some("r"));
        assert_eq!(run.artifacts.unwrap(), ["a.tar"]);
        let failed = concluded(&json!({"code": "failed"}), &files);
        assert_eq!(failed.code.as_str(), "failed");
        assert!(failed.failure_details.unwrap()["report_notes"][0].is_string());
        let nothing = concluded(&json!({"code": "nothing-to-do"}), &files);
        assert_eq!(nothing.code.as_str(), "nothing-to-do");
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
