//! `Resumes`: chains in a circle, pages, and what a validation finds.

use crate::support::{fixture::*, start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    domain::{
        name::RunId,
        queue::Bucket,
        resume_check::ResumeProblem,
        run::{ResultCode, Run},
    },
    ports::{ActiveRunStore, QueueStore, RunRecorder, vcs::MockVcs},
    services::{ServiceError, resumes::Resumes},
};
use serde_json::json;
use std::sync::Arc;

async fn recorded(fixture: &Fixture, id: &str, change: impl FnOnce(&mut Run)) {
    let store = &fixture.store;
    let item = enqueue_request("aa", Bucket::Default, 1.0);
    store.enqueue(batch(vec![item])).await.unwrap();
    let active = store.claim(claim(id)).await.unwrap().unwrap().run;
    let mut run = full_run(&active);
    change(&mut run);
    store.record(new_run(&active, run)).await.unwrap();
}

fn resumes(fixture: &Fixture) -> Resumes {
    let vcs = Arc::new(MockVcs::new());
    let assigner = fixture.assigner(fixture.store.clone(), vcs);
    Resumes {
        runs: fixture.store.clone(),
        history: fixture.store.clone(),
        catalog: fixture.store.clone(),
        resumption: assigner.resumption.clone(),
        host_backoffs: fixture.store.clone(),
        config: fixture.config.clone(),
    }
}

fn ids(runs: &[Run]) -> Vec<&str> {
    runs.iter().map(|run| run.id.as_str()).collect()
}

#[tokio::test]
async fn circles_end_and_are_named() {
    let fixture = Fixture::new();
    fixture.queued(&["aa"]).await;
    for (id, from, minutes) in [
        ("self", "self", 0),
        ("c1", "c3", 10),
        ("c2", "c1", 20),
        ("c3", "c2", 30),
        ("beside", "c3", 40),
    ] {
        recorded(&fixture, id, |run| {
            run.resume_from = Some(RunId::new(from));
            run.start_time = start() + TimeDelta::minutes(minutes);
        })
        .await;
    }
    recorded(&fixture, "lost", |run| {
        run.resume_from = Some(RunId::new("nosuch"));
    })
    .await;
    recorded(&fixture, "failed", |run| {
        run.code = ResultCode::new("no-luck");
    })
    .await;
    recorded(&fixture, "odd", |run| {
        run.resume_from = Some(RunId::new("failed"));
        run.start_time += TimeDelta::hours(1);
    })
    .await;
    let resumes = resumes(&fixture);
    for (id, expected) in [
        ("self", &[][..]),
        ("c1", &["c3", "c2"]),
        ("beside", &["c3", "c2", "c1"]),
        ("lost", &[]),
    ] {
        let page = resumes.chain(&RunId::new(id), None).await.unwrap();
        assert_eq!(ids(&page.runs), expected, "{id}");
        assert_eq!(page.next, None);
    }
    let page = resumes.validate(None, 100, &RunId::new("")).await.unwrap();
    let found: Vec<(&str, ResumeProblem)> = page
        .errors
        .iter()
        .map(|(id, problem)| (id.as_str(), *problem))
        .collect();
    assert_eq!(
        found,
        [
            ("c1", ResumeProblem::NotEarlier),
            ("c1", ResumeProblem::Cycle),
            ("lost", ResumeProblem::Missing),
            ("odd", ResumeProblem::NotSuccessful),
            ("self", ResumeProblem::NotEarlier),
            ("self", ResumeProblem::Cycle),
        ]
    );
}

#[tokio::test]
async fn pages_of_large_runs_are_short_and_complete() {
    let fixture = Fixture::new();
    fixture.queued(&["aa"]).await;
    let large = json!(["x".repeat(1 << 20)]);
    for number in 0..40 {
        recorded(&fixture, &format!("r{number:02}"), |run| {
            run.resume_from = (number > 0).then(|| RunId::new(format!("r{:02}", number - 1)));
            run.failure_details = Some(large.clone());
        })
        .await;
    }
    let resumes = resumes(&fixture);
    let last = RunId::new("r39");
    let (mut seen, mut cursor, mut pages) = (vec![], None, 0);
    loop {
        let page = resumes.chain(&last, cursor).await.unwrap();
        assert!(page.runs.len() <= 17, "{}", page.runs.len());
        seen.extend(page.runs.into_iter().map(|run| run.id.to_string()));
        pages += 1;
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let expected: Vec<String> = (0..39)
        .rev()
        .map(|number| format!("r{number:02}"))
        .collect();
    assert_eq!((seen, pages), (expected, 3));
    let unknown = resumes.chain(&last, Some(RunId::new("nosuch"))).await;
    assert!(
        matches!(unknown, Err(ServiceError::Invalid(_))),
        "{unknown:?}"
    );
}
