//! Runs as rows: `run` with its branches, and `runner_run` with what `run` has no column for. A
//! run that another runner stored has no row there; what `run` and its branches say is used
//! instead.

use crate::{
    adapters::postgres::records::read,
    domain::{
        name::{CampaignName, CodebaseName, RunId},
        publish::PublishStatus,
        retry::Disposition,
        run::{ReportFacts, ResultBranch, ResultCode, ResultTag, Run, Target},
        time::{self, Time, iso},
        vcs::VcsType,
    },
    ports::run_recorder::NewRun,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What `run` has no column for.
#[derive(Debug, Serialize, Deserialize)]
struct Facts {
    filenames: Vec<String>,
    artifacts: Option<Vec<String>>,
    remotes: Option<Value>,
    target: Option<Target>,
    branches: Option<Vec<ResultBranch>>,
    tags: Option<Vec<ResultTag>>,
    #[serde(default)]
    given_up: bool,
    #[serde(default)]
    report: ReportFacts,
}

/// A run as the statements of `sql/*_run*.sql` make it.
#[derive(Debug, Deserialize)]
struct Row {
    id: RunId,
    queue_id: Option<i64>,
    codebase: CodebaseName,
    suite: CampaignName,
    change_set: String,
    command: Option<String>,
    result_code: ResultCode,
    description: Option<String>,
    #[serde(with = "time::as_iso::option")]
    start_time: Option<Time>,
    #[serde(with = "time::as_iso::option")]
    finish_time: Option<Time>,
    instigated_context: Option<String>,
    context: Option<String>,
    main_branch_revision: Option<String>,
    revision: Option<String>,
    result: Option<Value>,
    value: Option<i32>,
    vcs_type: Option<VcsType>,
    branch_url: Option<String>,
    subpath: Option<String>,
    target_branch_url: Option<String>,
    worker: Option<String>,
    worker_link: Option<String>,
    failure_stage: Option<String>,
    failure_details: Option<Value>,
    failure_transient: Option<bool>,
    resume_from: Option<RunId>,
    publish_status: PublishStatus,
    logfilenames: Vec<String>,
    branches: Vec<ResultBranch>,
    tags: Vec<ResultTag>,
    facts: Option<Facts>,
}

/// Reads a run that the server made into JSON.
pub(in crate::adapters::postgres) fn run(json: &str) -> sqlx::Result<Run> {
    let row: Row = read(json)?;
    let start_time = row.start_time.or(row.finish_time).unwrap_or_default();
    let facts = row.facts.unwrap_or_else(|| Facts {
        filenames: row.logfilenames.clone(),
        artifacts: None,
        remotes: None,
        target: None,
        branches: Some(row.branches),
        tags: Some(row.tags),
        given_up: false,
        report: ReportFacts::default(),
    });
    Ok(Run {
        id: row.id,
        queue_id: row.queue_id.unwrap_or_default(),
        codebase: row.codebase,
        campaign: row.suite,
        change_set: row.change_set,
        command: row.command.unwrap_or_default(),
        code: row.result_code,
        description: row.description,
        start_time,
        finish_time: row.finish_time.unwrap_or(start_time),
        instigated_context: row.instigated_context,
        context: row.context,
        main_branch_revision: row.main_branch_revision,
        revision: row.revision,
        codemod: row.result,
        value: row.value,
        vcs_type: row.vcs_type,
        branch_url: row.branch_url,
        subpath: row.subpath,
        target_branch_url: row.target_branch_url,
        worker: row.worker,
        worker_link: row.worker_link,
        failure_stage: row.failure_stage,
        failure_details: row.failure_details,
        transient: row.failure_transient,
        resume_from: row.resume_from,
        branches: facts.branches,
        tags: facts.tags,
        remotes: facts.remotes,
        target: facts.target,
        publish_status: row.publish_status,
        filenames: facts.filenames,
        logfilenames: row.logfilenames,
        artifacts: facts.artifacts,
        given_up: facts.given_up,
        report: facts.report,
    })
}

/// Reads many runs that the server made into JSON.
pub(in crate::adapters::postgres) fn runs(rows: Vec<String>) -> sqlx::Result<Vec<Run>> {
    rows.iter().map(|json| run(json)).collect()
}

/// The rows that store runs, as the JSON document that `sql/store_runs.sql` and
/// `sql/replace_run.sql` read.
pub(super) fn document<'a>(batch: impl IntoIterator<Item = &'a NewRun>) -> String {
    Value::Array(batch.into_iter().map(row).collect()).to_string()
}

fn branches(run: &Run) -> Vec<Value> {
    let branch = |branch: &ResultBranch| {
        json!({
            "role": branch.role,
            "remote_name": branch.name,
            "base_revision": branch.base,
            "revision": branch.revision,
        })
    };
    run.branches.iter().flatten().map(branch).collect()
}

fn tags(run: &Run) -> Vec<Value> {
    let tag = |tag: &ResultTag| json!({ "actual_name": tag.name, "revision": tag.revision });
    run.tags.iter().flatten().map(tag).collect()
}

fn builds(run: &Run) -> Value {
    match &run.target {
        Some(Target::Debian(package)) => json!([{
            "version": package.version,
            "distribution": package.distribution,
            "source": package.source,
            "binary_packages": package.binary_packages,
            "lintian_result": package.lintian,
        }]),
        _ => json!([]),
    }
}

fn facts(run: &Run) -> Facts {
    Facts {
        filenames: run.filenames.clone(),
        artifacts: run.artifacts.clone(),
        remotes: run.remotes.clone(),
        target: run.target.clone(),
        branches: run.branches.clone(),
        tags: run.tags.clone(),
        given_up: run.given_up,
        report: run.report.clone(),
    }
}

fn row(new: &NewRun) -> Value {
    let run = &new.run;
    let requeue = match &new.disposition {
        Disposition::Complete => None,
        Disposition::Requeue(state) => Some(state),
    };
    json!({
        "token": new.token,
        "id": run.id,
        "queue_id": run.queue_id,
        "codebase": run.codebase,
        "suite": run.campaign,
        "change_set": run.change_set,
        "command": run.command,
        "result_code": run.code,
        "description": run.description,
        "start_time": iso(run.start_time),
        "finish_time": iso(run.finish_time),
        "instigated_context": run.instigated_context,
        "context": run.context,
        "main_branch_revision": run.main_branch_revision,
        "revision": run.revision,
        "result": run.codemod,
        "value": run.value,
        "vcs_type": run.vcs_type,
        "branch_url": run.branch_url,
        "subpath": run.subpath,
        "target_branch_url": run.target_branch_url,
        "worker": run.worker,
        "worker_link": run.worker_link,
        "failure_stage": run.failure_stage,
        "failure_details": run.failure_details,
        "failure_transient": run.transient,
        "resume_from": run.resume_from,
        "publish_status": run.publish_status,
        "logfilenames": run.logfilenames,
        "facts": facts(run),
        "branches": branches(run),
        "tags": tags(run),
        "build": builds(run),
        "own_change_set": run.key().change_set,
        "stored": iso(new.now),
        "requeue_state": requeue,
        "requeue_not_before": requeue.and_then(|state| state.not_before).map(iso),
        "requeue_parked": requeue.is_some_and(|state| state.parked.is_some()),
        "last_heartbeat": new.unless_seen_after.map(iso),
        "worker_at_fault": new.worker_at_fault,
        "counted_name": new.counted_name,
    })
}
