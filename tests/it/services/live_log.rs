//! `LiveLogIngest`.

use crate::support::fixture::*;
use chrono::TimeDelta;
use janitor_runner::{
    adapters::backchannel::none::NoBackchannel,
    domain::{caller::Caller, name::RunId},
    ports::{LiveLogs, RunStore, live_logs::MockLiveLogs, log_store::MockLogStore},
    services::{ServiceError, live_log::LiveLogIngest},
};
use std::sync::Arc;

#[tokio::test]
async fn live_log_of_vanished_worker_is_stored() {
    let fixture = Fixture::new();
    let run = fixture.leased("aa", "r1").await;
    fixture
        .live_log
        .append(
            &run.id,
            &Caller::Operator,
            "worker.log",
            0,
            "half of it".into(),
        )
        .await
        .unwrap();
    let mut logs = MockLogStore::new();
    logs.expect_store().times(1).returning(|folder, files, _| {
        assert_eq!(folder.run.as_str(), "r1");
        assert_eq!(files.len(), 1);
        assert_eq!(files[0].name.as_str(), "worker.log");
        assert_eq!(files[0].size, 10);
        Ok(())
    });
    logs.expect_open().returning(|_, _| Ok(None));
    fixture.clock.advance(TimeDelta::seconds(200));
    let finisher = fixture.finisher(fixture.store.clone(), working_artifacts(), Arc::new(logs));
    let watcher = fixture.watcher(Arc::new(NoBackchannel), finisher);
    watcher.clone().round().await.unwrap();
    assert_eq!(
        fixture
            .store
            .run(&run.id)
            .await
            .unwrap()
            .unwrap()
            .logfilenames,
        ["worker.log"]
    );
    watcher.round().await.unwrap();
    assert_eq!(fixture.store.runs().await.unwrap(), vec![]);
}

#[tokio::test]
async fn live_logs_of_ended_runs_are_removed() {
    let fixture = Fixture::new();
    let run = fixture.leased("aa", "r1").await;
    fixture
        .store
        .append(&run.id, "w.log", 0, "x".into(), 9)
        .await
        .unwrap();
    fixture
        .store
        .append(
            &janitor_runner::domain::name::RunId::new("gone"),
            "w.log",
            0,
            "x".into(),
            9,
        )
        .await
        .unwrap();
    fixture
        .watcher(Arc::new(NoBackchannel), fixture.working_finisher())
        .round()
        .await
        .unwrap();
    assert_eq!(fixture.store.runs().await.unwrap(), [run.id]);
}

#[tokio::test]
async fn invalid_or_oversized_append_is_rejected() {
    let fixture = Fixture::new();
    let run = fixture.leased("aa", "r1").await;
    let append = |name: &'static str, offset, bytes: Vec<u8>| {
        let (live_log, id) = (fixture.live_log.clone(), run.id.clone());
        async move {
            live_log
                .append(&id, &Caller::Operator, name, offset, bytes.into())
                .await
        }
    };
    assert_eq!(append("a.log", 0, vec![b'x'; 600]).await.unwrap().0, 600);
    assert!(matches!(
        append("b.log", 0, vec![b'x'; 500]).await,
        Err(ServiceError::TooLarge { limit: 1000, .. })
    ));
    assert!(matches!(
        append("a.log", 601, vec![b'x'; 5]).await,
        Err(ServiceError::Gap(600))
    ));
    assert!(matches!(
        append("a.txt", 0, vec![b'x']).await,
        Err(ServiceError::Invalid(_))
    ));
    assert!(matches!(
        append("../a.log", 0, vec![b'x']).await,
        Err(ServiceError::Invalid(_))
    ));
}

#[tokio::test]
async fn log_that_goes_before_it_is_read_is_left_out() {
    let fixture = Fixture::new();
    let mut logs = MockLiveLogs::new();
    logs.expect_list()
        .returning(|_| Ok(vec![("w.log".to_owned(), 4)]));
    // Whoever ended the run meanwhile has removed it.
    logs.expect_read().returning(|_, _, _, _| Ok(None));
    let live_log = LiveLogIngest::new(Arc::new(logs), fixture.keepalive, fixture.config);
    let files = live_log
        .collect(&RunId::new("r1"), &[], async |files| files)
        .await
        .unwrap();
    assert_eq!(files.len(), 0);
}
