//! Runs as rows: `run` with its branches, and `runner_run` with what `run` has no column for. A run that another runner
//! stored has no row there; what can be told of it is told.

use crate::domain::{
    name::{CampaignName, CodebaseName, RunId},
    publish::PublishStatus,
    retry::Disposition,
    run::{ResultBranch, ResultCode, ResultTag, Run, Target},
    time::{self, Time, iso},
    vcs::VcsType,
};
use crate::ports::run_recorder::NewRun;
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
}

/// A row as `run_json!` makes it.
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

/// The JSON of a row of `run` named `run`, with `own` its row of `runner_run`.
macro_rules! run_json {
    () => {
        "json_build_object('id', run.id, 'queue_id', own.queue_id, 'codebase', run.codebase, 'suite', run.suite, 'change_set', run.change_set,
            'command', run.command, 'result_code', run.result_code, 'description', run.description, 'start_time', run.start_time,
            'finish_time', run.finish_time, 'instigated_context', run.instigated_context, 'context', run.context,
            'main_branch_revision', run.main_branch_revision, 'revision', run.revision, 'result', run.result, 'value', run.value,
            'vcs_type', run.vcs_type, 'branch_url', run.branch_url, 'subpath', run.subpath, 'target_branch_url', run.target_branch_url,
            'worker', run.worker, 'worker_link', run.worker_link, 'failure_stage', run.failure_stage, 'failure_details', run.failure_details,
            'failure_transient', run.failure_transient, 'resume_from', run.resume_from, 'publish_status', run.publish_status,
            'logfilenames', run.logfilenames, 'facts', own.facts,
            'branches', (SELECT coalesce(json_agg(json_build_array(b.role, b.remote_name, b.base_revision, b.revision) ORDER BY b.role), '[]')
                FROM new_result_branch AS b WHERE b.run_id = run.id),
            'tags', (SELECT coalesce(json_agg(json_build_array(t.actual_name, t.revision)), '[]') FROM unnest(run.result_tags) AS t))::text"
    };
}

/// Joins the row of `runner_run` of `run`, looked up for each: plans are kept, and one that was made while a table was
/// empty must not read all of it for ever.
macro_rules! own {
    () => {
        "LEFT JOIN LATERAL (SELECT * FROM runner_run WHERE run_id = run.id OFFSET 0) AS own ON true"
    };
}
pub(super) use {own, run_json};

/// Reads what `run_json!` made.
pub(super) fn run(json: &str) -> sqlx::Result<Run> {
    let row: Row = super::read(json)?;
    let start_time = row.start_time.or(row.finish_time).unwrap_or_default();
    let facts = row.facts.unwrap_or_else(|| Facts {
        filenames: row.logfilenames.clone(),
        artifacts: None,
        remotes: None,
        target: None,
        branches: Some(row.branches),
        tags: Some(row.tags),
        given_up: false,
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
    })
}

/// The same of many.
pub(super) fn runs(rows: Vec<String>) -> sqlx::Result<Vec<Run>> {
    rows.iter().map(|json| run(json)).collect()
}

/// The row that stores a run, for `STORE` in `results.rs`.
pub(super) fn row(new: &NewRun) -> Value {
    let run = &new.run;
    let facts = Facts {
        filenames: run.filenames.clone(),
        artifacts: run.artifacts.clone(),
        remotes: run.remotes.clone(),
        target: run.target.clone(),
        branches: run.branches.clone(),
        tags: run.tags.clone(),
        given_up: run.given_up,
    };
    let back = match &new.disposition {
        Disposition::Complete => None,
        Disposition::Requeue(state) => Some(state),
    };
    let branches: Vec<Value> = run
        .branches
        .iter()
        .flatten()
        .map(|b| json!({ "role": b.role, "remote_name": b.name, "base_revision": b.base, "revision": b.revision }))
        .collect();
    let tags: Vec<Value> = run
        .tags
        .iter()
        .flatten()
        .map(|tag| json!({ "actual_name": tag.name, "revision": tag.revision }))
        .collect();
    let build = match &run.target {
        Some(Target::Debian(package)) => {
            json!([{ "version": package.version, "distribution": package.distribution, "source": package.source,
            "binary_packages": package.binary_packages, "lintian_result": package.lintian }])
        }
        _ => json!([]),
    };
    json!({
        "token": new.token, "id": run.id, "queue_id": run.queue_id, "codebase": run.codebase, "suite": run.campaign, "change_set": run.change_set,
        "command": run.command, "result_code": run.code, "description": run.description, "start_time": iso(run.start_time),
        "finish_time": iso(run.finish_time), "instigated_context": run.instigated_context, "context": run.context,
        "main_branch_revision": run.main_branch_revision, "revision": run.revision, "result": run.codemod, "value": run.value,
        "vcs_type": run.vcs_type, "branch_url": run.branch_url, "subpath": run.subpath, "target_branch_url": run.target_branch_url,
        "worker": run.worker, "worker_link": run.worker_link, "failure_stage": run.failure_stage, "failure_details": run.failure_details,
        "failure_transient": run.transient, "resume_from": run.resume_from, "publish_status": run.publish_status,
        "logfilenames": run.logfilenames, "facts": facts, "branches": branches, "tags": tags, "build": build,
        "own_change_set": run.key().change_set, "stored": iso(new.now),
        "back": back, "back_not_before": back.and_then(|state| state.not_before).map(iso), "back_parked": back.is_some_and(|state| state.parked.is_some()),
        "seen": new.unless_seen_after.map(iso), "worker_at_fault": new.worker_at_fault,
    })
}
