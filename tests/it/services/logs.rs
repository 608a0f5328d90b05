//! `Logs`: following and cancelling.

use crate::support::fixture::*;
use janitor_runner::{
    adapters::backchannel::none::NoBackchannel,
    ports::{ActiveRunStore, log_store::MockLogStore},
    services::{
        ServiceError,
        logs::{LogPart, Logs},
    },
};
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_log_is_followed_from_the_worker_to_the_store() {
    use futures::StreamExt;
    let place = place();
    let run = place.leased("aa", "r1").await;
    place
        .live_log
        .append(&run.id, None, "w.log", 0, "one ".into())
        .await
        .unwrap();
    let mut stored = MockLogStore::new();
    stored.expect_open().returning(|_, _| {
        Ok(Some(Box::new(std::io::Cursor::new(
            b"one two three".to_vec(),
        ))))
    });
    let logs = Arc::new(Logs {
        active_runs: place.store.clone(),
        runs: place.store.clone(),
        stored: Arc::new(stored),
        live_log: place.live_log.clone(),
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
    place
        .live_log
        .append(&run.id, None, "w.log", 4, "two".into())
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert!(!all.is_finished());
    finish(&place.working_finisher(), &run.id, SUCCESS)
        .await
        .unwrap();
    let all = tokio::time::timeout(Duration::from_secs(5), all)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(all[0].as_str(), "ne ");
    assert_eq!(all.concat().as_str(), "ne two three");
    // One that nobody follows is what there is now.
    let now: Vec<_> = logs
        .open(
            &run.id,
            "w.log",
            LogPart {
                offset: 8,
                follow: false,
            },
        )
        .await
        .unwrap()
        .collect()
        .await;
    assert_eq!(now.len(), 1);
    assert_eq!(now[0].as_ref().unwrap(), "three");
}

#[tokio::test]
async fn kill_marks_the_claim_whatever_its_worker_can_do() {
    let place = place();
    let unleased = place.held().await;
    let leased = place.leased("bb", "r2").await.id;
    let logs = Arc::new(Logs {
        active_runs: place.store.clone(),
        runs: place.store.clone(),
        stored: Arc::new(MockLogStore::new()),
        live_log: place.live_log.clone(),
        backchannel: Arc::new(NoBackchannel),
        ending: CancellationToken::new(),
    });
    assert!(matches!(
        logs.kill(&unleased).await,
        Err(ServiceError::Unsupported(_))
    ));
    assert!(logs.kill(&leased).await.is_ok());
    for id in [&unleased, &leased] {
        assert!(place.store.get(id).await.unwrap().unwrap().cancel.is_some());
    }
    assert!(matches!(
        logs.kill(&janitor_runner::domain::name::RunId::new("never"))
            .await,
        Err(ServiceError::NotFound { .. })
    ));
}
