//! Values with every field set, and constructors of the usual ones.

use super::start;
use chrono::TimeDelta;
use janitor_runner::{
    domain::{
        active_run::{ActiveRun, BackchannelAddress, Claimant},
        candidate::{Candidate, NewCandidate},
        codebase::Codebase,
        name::{CampaignName, CodebaseName, RunId},
        publish::PublishStatus,
        queue::{Bucket, EnqueueRequest, QueueKey},
        retry::Disposition,
        run::{DebianPackage, ReportFacts, ResultBranch, ResultCode, ResultTag, Run, Target},
        schedule::Pair,
        vcs::VcsType,
    },
    ports::{
        active_runs::ClaimRequest,
        catalog::ScheduledCandidate,
        queue_store::{ClaimFilter, EnqueueBatch},
        run_recorder::NewRun,
    },
};
use serde_json::json;

pub fn codebase_name(name: &str) -> CodebaseName {
    CodebaseName::new(name).unwrap()
}

pub fn campaign_name(name: &str) -> CampaignName {
    CampaignName::new(name).unwrap()
}

pub fn key(codebase: &str, campaign: &str) -> QueueKey {
    QueueKey {
        codebase: codebase_name(codebase),
        campaign: campaign_name(campaign),
        change_set: None,
    }
}

pub fn pair(codebase: &str, campaign: &str) -> Pair {
    Pair {
        codebase: codebase_name(codebase),
        campaign: campaign_name(campaign),
    }
}

pub fn bare_codebase(name: &str) -> Codebase {
    Codebase {
        name: Some(codebase_name(name)),
        branch_url: None,
        url: None,
        branch: None,
        subpath: None,
        vcs_type: None,
        vcs_last_revision: None,
        value: None,
        web_url: None,
    }
}

pub fn codebase_at(name: &str, url: &str) -> Codebase {
    Codebase {
        branch_url: Some(url.to_owned()),
        url: Some(url.to_owned()),
        ..bare_codebase(name)
    }
}

pub fn full_codebase(name: &str) -> Codebase {
    Codebase {
        name: Some(codebase_name(name)),
        branch_url: Some("https://example.com/x.git,branch=a%2Fb".into()),
        url: Some("https://example.com/x.git".into()),
        branch: Some("a/b".into()),
        subpath: Some("sub/dir".into()),
        vcs_type: Some(VcsType::Git),
        vcs_last_revision: Some("abc".into()),
        value: Some(10),
        web_url: Some("https://example.com/x".into()),
    }
}

pub fn enqueue_request(codebase: &str, bucket: Bucket, offset: f64) -> EnqueueRequest {
    EnqueueRequest {
        key: key(codebase, "gen"),
        bucket,
        offset,
        command: "true".into(),
        context: None,
        estimated_duration: Some(10.0),
        refresh: false,
        requester: None,
        interval: None,
    }
}

pub fn batch(items: Vec<EnqueueRequest>) -> EnqueueBatch {
    EnqueueBatch {
        items,
        settles: vec![],
        now: start(),
    }
}

pub fn claim(run: &str) -> ClaimRequest {
    ClaimRequest {
        filter: ClaimFilter::default(),
        claimant: Claimant {
            worker: None,
            worker_link: Some("http://w/".into()),
            backchannel: Some(BackchannelAddress::Jenkins {
                url: "http://j/".into(),
            }),
            ..Claimant::default()
        },
        run_id: RunId::new(run),
        token: format!("token-{run}"),
        now: start(),
        lease: None,
    }
}

fn report_facts() -> ReportFacts {
    ReportFacts {
        start_time: Some("1970-01-01T00:00:00".into()),
        finish_time: None,
        repeated_times: None,
        notes: vec!["value: \"high\" is not a number".into()],
    }
}

/// A run with every field set.
pub fn full_run(active: &ActiveRun) -> Run {
    Run {
        id: active.id.clone(),
        queue_id: active.item.id,
        codebase: active.item.key.codebase.clone(),
        campaign: active.item.key.campaign.clone(),
        change_set: active
            .item
            .key
            .change_set
            .clone()
            .unwrap_or_else(|| active.id.to_string()),
        command: "true".into(),
        code: ResultCode::success(),
        description: Some("did it ä ⇒".into()),
        start_time: start() + TimeDelta::microseconds(1),
        finish_time: start() + TimeDelta::seconds(60),
        instigated_context: Some("asked".into()),
        context: Some("found".into()),
        main_branch_revision: Some("r1".into()),
        revision: Some("r2".into()),
        codemod: Some(json!({"applied": [1, {"deep": null}]})),
        value: Some(-3),
        vcs_type: Some(VcsType::Git),
        branch_url: Some("https://example.com/x".into()),
        subpath: Some("sub".into()),
        target_branch_url: Some("https://example.com/t".into()),
        worker: None,
        worker_link: Some("http://w/".into()),
        failure_stage: Some("build/compile".into()),
        failure_details: Some(json!({"why": "x"})),
        transient: Some(false),
        resume_from: None,
        branches: Some(vec![ResultBranch {
            role: "main".into(),
            name: None,
            base: Some("r1".into()),
            revision: Some("r2".into()),
        }]),
        tags: Some(vec![ResultTag {
            name: Some("t".into()),
            revision: "r2".into(),
        }]),
        remotes: Some(json!({"origin": {"url": "u"}})),
        target: Some(Target::Debian(DebianPackage {
            source: "hello".into(),
            version: "1.0-1".into(),
            distribution: "sid".into(),
            changes_filenames: vec!["h.changes".into()],
            binary_packages: vec!["hello".into()],
            lintian: Some(json!({})),
        })),
        publish_status: PublishStatus::Unknown,
        filenames: vec!["h.changes".into(), "w.log".into()],
        logfilenames: vec!["w.log".into()],
        artifacts: Some(vec!["h.changes".into()]),
        given_up: false,
        report: report_facts(),
    }
}

/// A run of that claim to be recorded, which removes its item.
pub fn new_run(active: &ActiveRun, run: Run) -> NewRun {
    NewRun {
        counted_name: run.worker.clone(),
        run,
        token: active.token.clone(),
        now: start(),
        disposition: Disposition::Complete,
        unless_seen_after: None,
        worker_at_fault: None,
    }
}

pub fn new_candidate(codebase: &str) -> ScheduledCandidate {
    let candidate = Candidate {
        id: 0,
        key: key(codebase, "gen"),
        command: "true".into(),
        context: Some("c".into()),
        value: Some(7),
        success_chance: Some(0.25),
        publish_policy: None,
    };
    let new = NewCandidate {
        candidate,
        bucket: None,
        requester: None,
        followup_for: vec![],
    };
    ScheduledCandidate {
        new,
        enqueue: enqueue_request(codebase, Bucket::Default, 5.0),
    }
}
