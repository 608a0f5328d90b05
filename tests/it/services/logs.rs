//! `Logs`: following and cancelling.

use crate::support::fixture::*;
use janitor_runner::{
    adapters::backchannel::none::NoBackchannel,
    domain::caller::Caller,
    ports::{ActiveRunStore, log_store::MockLogStore},
    services::{
        ServiceError,
        logs::{LogPart, Logs},
    },
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn followed_log_continues_from_the_stored_one() {
    use futures::StreamExt;
    let fixture = Fixture::new();
    let run = fixture.leased("aa", "r1").await;
    fixture
        .live_log
        .append(&run.id, &Caller::Operator, "w.log", 0, "one ".into())
        .await
        .unwrap();
    let mut stored = MockLogStore::new();
    stored.expect_open().returning(|_, _| {
        Ok(Some(Box::new(std::io::Cursor::new(
            b"one two three".to_vec(),
        ))))
    });
    let logs = Arc::new(Logs {
        active_runs: fixture.store.clone(),
        runs: fixture.store.clone(),
        stored: Arc::new(stored),
        live_log: fixture.live_log.clone(),
        backchannel: Arc::new(NoBackchannel),
        ending: CancellationToken::new(),
    });
    let part = LogPart {
        offset: 1,
        follow: true,
    };
    let reading = logs.open(&run.id, "w.log", part).await.unwrap();
    let all = tokio::spawn(
        reading
            .map(|bytes| String::from_utf8(bytes.unwrap().to_vec()).unwrap())
            .collect::<Vec<_>>(),
    );
    fixture
        .live_log
        .append(&run.id, &Caller::Operator, "w.log", 4, "two".into())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!all.is_finished());
    finish(&fixture.working_finisher(), &run.id, SUCCESS_REPORT)
        .await
        .unwrap();
    let all = tokio::time::timeout(Duration::from_secs(5), all)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(all[0].as_str(), "ne ");
    assert_eq!(all.concat().as_str(), "ne two three");
    // Without `follow`, the log is what is stored now.
    let part = LogPart {
        offset: 8,
        follow: false,
    };
    let now: Vec<_> = logs
        .open(&run.id, "w.log", part)
        .await
        .unwrap()
        .collect()
        .await;
    assert_eq!(now.len(), 1);
    assert_eq!(now[0].as_ref().unwrap(), "three");
}

#[tokio::test]
async fn kill_cancels_the_claim_with_or_without_a_backchannel() {
    let fixture = Fixture::new();
    let unleased = fixture.claimed().await;
    let leased = fixture.leased("bb", "r2").await.id;
    let logs = Arc::new(Logs {
        active_runs: fixture.store.clone(),
        runs: fixture.store.clone(),
        stored: Arc::new(MockLogStore::new()),
        live_log: fixture.live_log.clone(),
        backchannel: Arc::new(NoBackchannel),
        ending: CancellationToken::new(),
    });
    assert!(matches!(
        logs.kill(&unleased).await,
        Err(ServiceError::Unsupported(_))
    ));
    assert!(logs.kill(&leased).await.is_ok());
    for id in [&unleased, &leased] {
        assert!(
            fixture
                .store
                .get(id)
                .await
                .unwrap()
                .unwrap()
                .cancel
                .is_some()
        );
    }
    assert!(matches!(
        logs.kill(&janitor_runner::domain::name::RunId::new("never"))
            .await,
        Err(ServiceError::NotFound { .. })
    ));
}
