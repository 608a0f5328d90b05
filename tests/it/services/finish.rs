//! `Finisher`: ports that fail while a run is finished, and late results.

use crate::support::fixture::*;
use chrono::TimeDelta;
use janitor_runner::{
    adapters::backchannel::none::NoBackchannel,
    ports::{
        QueueStore, RunStore, artifact_store::MockArtifactStore, log_store::MockLogStore,
        run_recorder::MockRunRecorder,
    },
    services::{ServiceError, finish::Finishable},
};
use std::sync::Arc;

#[tokio::test]
async fn artifacts_that_cannot_be_stored_fail_the_run_but_keep_it() {
    let place = place();
    let id = place.held().await;
    let mut artifacts = MockArtifactStore::new();
    artifacts
        .expect_store()
        .times(1)
        .returning(|_, _| Err(away()));
    let finisher = place.finisher(place.store.clone(), Arc::new(artifacts), working_logs());
    let finished = finish(&finisher, &id, SUCCESS).await.unwrap();
    assert_eq!(finished.run.code.as_str(), "artifact-upload-failed");
    assert_eq!(finished.run.revision.as_deref(), Some("r"));
    assert_eq!(place.store.run(&id).await.unwrap().unwrap(), finished.run);
}

#[tokio::test]
async fn logs_that_cannot_be_stored_are_not_claimed_to_be() {
    let place = place();
    let id = place.held().await;
    let mut logs = MockLogStore::new();
    logs.expect_store()
        .times(1)
        .returning(|_, _, _| Err(away()));
    let finisher = place.finisher(place.store.clone(), working_artifacts(), Arc::new(logs));
    let finished = finish(&finisher, &id, SUCCESS).await.unwrap();
    assert_eq!(finished.run.code.as_str(), "success");
    assert_eq!(finished.run.logfilenames.len(), 0);
}

#[tokio::test]
async fn a_result_store_that_is_away_leaves_the_run_to_be_finished_again() {
    let place = place();
    let id = place.held().await;
    let mut recorder = MockRunRecorder::new();
    recorder
        .expect_record()
        .times(1)
        .returning(|_| Err(away().into()));
    let finisher = place.finisher(Arc::new(recorder), working_artifacts(), working_logs());
    let refused = finish(&finisher, &id, SUCCESS).await;
    assert!(matches!(refused, Err(ServiceError::Fault(fault)) if fault.is_unavailable()));
    let finisher = place.finisher(place.store.clone(), working_artifacts(), working_logs());
    assert!(finish(&finisher, &id, SUCCESS).await.unwrap().first_time);
}

#[tokio::test]
async fn a_late_result_is_kept_and_said_twice_only_once() {
    let place = place();
    let run = place.leased("aa", "r1").await;
    let finisher = place.working_finisher();
    // Found while it was active, handed in after it was given up.
    let Finishable::Active(held) = finisher.find(&run.id, None).await.unwrap() else {
        panic!("it is active")
    };
    place.clock.advance(TimeDelta::seconds(200));
    place
        .watcher(Arc::new(NoBackchannel), finisher.clone())
        .round()
        .await
        .unwrap();
    assert_eq!(
        place
            .store
            .run(&run.id)
            .await
            .unwrap()
            .unwrap()
            .code
            .as_str(),
        "worker-timeout"
    );
    let late = finisher.finish(*held, &upload(SUCCESS)).await.unwrap();
    assert!(late.first_time);
    assert!(late.run.code.is_success());
    assert!(!late.run.given_up);
    assert_eq!(place.store.run(&run.id).await.unwrap().unwrap(), late.run);
    assert_eq!(
        QueueStore::list(place.store.as_ref(), 9).await.unwrap(),
        vec![]
    );
    let again = finish(&finisher, &run.id, "{}").await.unwrap();
    assert!(!again.first_time);
    assert_eq!(again.run, late.run);
}

#[tokio::test]
async fn a_broken_late_report_is_kept_too() {
    let place = place();
    let run = place.leased("aa", "r1").await;
    place.clock.advance(TimeDelta::seconds(200));
    let finisher = place.working_finisher();
    place
        .watcher(Arc::new(NoBackchannel), finisher.clone())
        .round()
        .await
        .unwrap();
    let late = finish(&finisher, &run.id, "nonsense").await.unwrap();
    assert!(late.first_time);
    assert_eq!(late.run.code.as_str(), "worker-invalid-result");
}
