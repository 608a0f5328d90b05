//! `Finisher`: ports that fail while a run is finished, and late results.

use crate::support::fixture::*;
use chrono::TimeDelta;
use janitor_runner::{
    adapters::backchannel::none::NoBackchannel,
    domain::caller::Caller,
    ports::{
        ActiveRunStore, LiveLogs, QueueStore, RunStore, artifact_store::MockArtifactStore,
        log_store::MockLogStore, run_recorder::MockRunRecorder,
    },
    services::{ServiceError, finish::Finishable},
};
use serde_json::json;
use std::sync::Arc;

#[tokio::test]
async fn failed_artifact_upload_fails_the_run_and_stores_it() {
    let fixture = Fixture::new();
    let id = fixture.claimed().await;
    let mut artifacts = MockArtifactStore::new();
    artifacts
        .expect_store()
        .times(1)
        .returning(|_, _| Err(unavailable()));
    let finisher = fixture.finisher(fixture.store.clone(), Arc::new(artifacts), working_logs());
    let finished = finish(&finisher, &id, SUCCESS_REPORT).await.unwrap();
    assert_eq!(finished.run.code.as_str(), "artifact-upload-failed");
    assert_eq!(finished.run.revision.as_deref(), Some("r"));
    assert_eq!(fixture.store.run(&id).await.unwrap().unwrap(), finished.run);
}

#[tokio::test]
async fn failed_log_upload_leaves_no_log_names() {
    let fixture = Fixture::new();
    let id = fixture.claimed().await;
    let mut logs = MockLogStore::new();
    logs.expect_store()
        .times(1)
        .returning(|_, _, _| Err(unavailable()));
    let finisher = fixture.finisher(fixture.store.clone(), working_artifacts(), Arc::new(logs));
    let finished = finish(&finisher, &id, SUCCESS_REPORT).await.unwrap();
    assert_eq!(finished.run.code.as_str(), "success");
    assert_eq!(finished.run.logfilenames.len(), 0);
}

#[tokio::test]
async fn unavailable_store_allows_finishing_again() {
    let fixture = Fixture::new();
    let id = fixture.claimed().await;
    let mut recorder = MockRunRecorder::new();
    recorder
        .expect_record()
        .times(1)
        .returning(|_| Err(unavailable().into()));
    let finisher = fixture.finisher(Arc::new(recorder), working_artifacts(), working_logs());
    let refused = finish(&finisher, &id, SUCCESS_REPORT).await;
    assert!(matches!(refused, Err(ServiceError::Fault(fault)) if fault.is_unavailable()));
    let finisher = fixture.finisher(fixture.store.clone(), working_artifacts(), working_logs());
    assert!(
        finish(&finisher, &id, SUCCESS_REPORT)
            .await
            .unwrap()
            .first_time
    );
}

#[tokio::test]
async fn late_result_is_idempotent() {
    let fixture = Fixture::new();
    let run = fixture.leased("aa", "r1").await;
    let finisher = fixture.working_finisher();
    // The run is looked up while it is active, and finished after it was abandoned.
    let Finishable::Active(claimed) = finisher.find(&run.id, &Caller::Operator).await.unwrap()
    else {
        panic!("it is active")
    };
    fixture.clock.advance(TimeDelta::seconds(200));
    fixture
        .watcher(Arc::new(NoBackchannel), finisher.clone())
        .round()
        .await
        .unwrap();
    assert_eq!(
        fixture
            .store
            .run(&run.id)
            .await
            .unwrap()
            .unwrap()
            .code
            .as_str(),
        "worker-timeout"
    );
    let late = finisher
        .finish(*claimed, upload(SUCCESS_REPORT))
        .await
        .unwrap();
    assert!(late.first_time);
    assert!(late.run.code.is_success());
    assert!(!late.run.given_up);
    assert_eq!(fixture.store.run(&run.id).await.unwrap().unwrap(), late.run);
    assert_eq!(
        QueueStore::list(fixture.store.as_ref(), 9).await.unwrap(),
        vec![]
    );
    let again = finish(&finisher, &run.id, "{}").await.unwrap();
    assert!(!again.first_time);
    assert_eq!(again.run, late.run);
}

#[tokio::test]
async fn malformed_late_report_is_stored() {
    let fixture = Fixture::new();
    let run = fixture.leased("aa", "r1").await;
    fixture.clock.advance(TimeDelta::seconds(200));
    let finisher = fixture.working_finisher();
    fixture
        .watcher(Arc::new(NoBackchannel), finisher.clone())
        .round()
        .await
        .unwrap();
    let late = finish(&finisher, &run.id, "nonsense").await.unwrap();
    assert!(late.first_time);
    assert_eq!(late.run.code.as_str(), "worker-invalid-result");
}

/// A log store that remembers the names that are stored in it.
fn recording_logs() -> (Arc<MockLogStore>, Arc<std::sync::Mutex<Vec<String>>>) {
    let names = Arc::<std::sync::Mutex<Vec<String>>>::default();
    let mut logs = MockLogStore::new();
    let stored = names.clone();
    logs.expect_store().returning(move |_, files, _| {
        let names = files.iter().map(|file| file.name.clone());
        stored.lock().unwrap().extend(names);
        Ok(())
    });
    (Arc::new(logs), names)
}

#[tokio::test]
async fn live_logs_that_the_upload_lacks_become_logs_of_the_run() {
    let fixture = Fixture::new();
    let run = fixture.leased("aa", "r1").await;
    for name in ["codemod.log", "w.log"] {
        fixture
            .store
            .append(&run.id, name, 0, "live".into(), 99)
            .await
            .unwrap();
    }
    let (logs, stored) = recording_logs();
    let finisher = fixture.finisher(fixture.store.clone(), working_artifacts(), logs);
    let finished = finish(&finisher, &run.id, SUCCESS_REPORT).await.unwrap();
    // The upload has a w.log of its own.
    assert_eq!(finished.run.logfilenames, ["w.log", "codemod.log"]);
    assert_eq!(finished.run.filenames, ["out", "w.log"]);
    stored.lock().unwrap().sort();
    assert_eq!(*stored.lock().unwrap(), ["codemod.log", "w.log"]);
}

#[tokio::test]
async fn late_result_keeps_the_logs_of_the_abandoned_run() {
    let fixture = Fixture::new();
    let run = fixture.leased("aa", "r1").await;
    fixture
        .store
        .append(&run.id, "codemod.log", 0, "live".into(), 99)
        .await
        .unwrap();
    fixture.clock.advance(TimeDelta::seconds(200));
    let finisher = fixture.working_finisher();
    let watcher = fixture.watcher(Arc::new(NoBackchannel), finisher.clone());
    watcher.clone().round().await.unwrap();
    // The live logs of ended runs are removed in the next round.
    watcher.round().await.unwrap();
    let late = finish(&finisher, &run.id, SUCCESS_REPORT).await.unwrap();
    assert_eq!(late.run.logfilenames, ["w.log", "codemod.log"]);
    let stored = fixture.store.run(&run.id).await.unwrap().unwrap();
    assert_eq!(stored.logfilenames, ["w.log", "codemod.log"]);
}

#[tokio::test]
async fn abandoned_run_says_why_it_ended() {
    let fixture = Fixture::new();
    let run = fixture.leased("aa", "r1").await;
    fixture
        .live_log
        .append(&run.id, &Caller::Operator, "w.log", 0, "12345".into())
        .await
        .unwrap();
    fixture.clock.advance(TimeDelta::seconds(200));
    let finisher = fixture.working_finisher();
    fixture
        .watcher(Arc::new(NoBackchannel), finisher)
        .round()
        .await
        .unwrap();
    let ended = fixture.store.run(&run.id).await.unwrap().unwrap();
    assert_eq!(ended.code.as_str(), "worker-timeout");
    assert_eq!(
        ended.failure_details.unwrap(),
        json!({
            "termination_reason": "lease-expired", "run_duration_seconds": 200.0,
            "last_sign_of_life_seconds": 200.0, "backchannel": "jenkins", "log_bytes": 5,
            "by": "runner"
        })
    );
}

#[tokio::test]
async fn failure_of_a_killed_run_says_that_it_was_killed() {
    let fixture = Fixture::new();
    let run = fixture.leased("aa", "r1").await;
    fixture
        .live_log
        .append(&run.id, &Caller::Operator, "live.log", 0, "12345".into())
        .await
        .unwrap();
    ActiveRunStore::cancel(fixture.store.as_ref(), &run.id, "killed by an operator")
        .await
        .unwrap();
    let finisher = fixture.working_finisher();
    let report = r#"{"code": "cancelled", "details": {"signal": 15}}"#;
    let finished = finish(&finisher, &run.id, report).await.unwrap();
    let details = finished.run.failure_details.unwrap();
    assert_eq!(details["termination_reason"], "killed");
    assert_eq!(details["by"], "operator");
    assert_eq!(details["signal"], 15);
    // One byte of the log in the upload.
    assert_eq!(details["log_bytes"], 6);
}
