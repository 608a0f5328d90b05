//! `LongPoll`.

use crate::support::{fixture::*, start};
use janitor_runner::{
    domain::{
        active_run::Claimant,
        pause::{Pause, Scope},
    },
    ports::PauseStore,
    services::{ServiceError, assign::AssignRequest},
};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

fn wish_of(worker: &str) -> AssignRequest {
    AssignRequest {
        claimant: Claimant {
            worker: Some(worker.into()),
            ..Claimant::default()
        },
        ..AssignRequest::default()
    }
}

#[tokio::test]
async fn who_waits_gets_what_comes_each_of_them_one() {
    let place = place();
    let room = place.waiting_room(&CancellationToken::new());
    let telling = tokio::spawn({
        let room = room.clone();
        async move { room.run().await }
    });
    let waiting: Vec<_> = (0..5)
        .map(|number| {
            let room = room.clone();
            tokio::spawn(async move {
                room.assign(wish_of(&format!("w{number}")), Duration::from_secs(20))
                    .await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    let names = ["aa", "bb", "cc", "dd", "ee"];
    place.queued(&names).await;
    let mut got = vec![];
    for waiting in waiting {
        let assignment = tokio::time::timeout(Duration::from_millis(900), waiting)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        got.push(assignment.run.item.key.codebase.to_string());
    }
    got.sort();
    assert_eq!(got, names);
    telling.abort();
}

#[tokio::test]
async fn waiting_ends_with_its_time_or_the_process_and_passes_paused_workers_by() {
    let place = place();
    let ending = CancellationToken::new();
    let room = place.waiting_room(&ending);
    let telling = tokio::spawn({
        let room = room.clone();
        async move { room.run().await }
    });
    assert!(matches!(
        room.assign(wish_of("w1"), Duration::from_millis(30)).await,
        Err(ServiceError::QueueEmpty)
    ));
    place
        .store
        .pause(Pause {
            scope: Scope::Worker("w1".into()),
            reason: "x".into(),
            since: start(),
            until: None,
        })
        .await
        .unwrap();
    let wait = |worker: &'static str| {
        let room = room.clone();
        tokio::spawn(async move { room.assign(wish_of(worker), Duration::from_secs(20)).await })
    };
    let paused = wait("w1");
    // Called by the clock, it stands aside when the first item comes.
    for (worker, item, after) in [("w2", "aa", 1000), ("w3", "bb", 30)] {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let other = wait(worker);
        tokio::time::sleep(Duration::from_millis(after)).await;
        place.queued(&[item]).await;
        let got = tokio::time::timeout(Duration::from_millis(800), other)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(got.run.claimant.worker.as_deref(), Some(worker));
        assert!(!paused.is_finished());
    }
    ending.cancel();
    assert!(matches!(
        tokio::time::timeout(Duration::from_secs(5), paused)
            .await
            .unwrap()
            .unwrap(),
        Err(ServiceError::Stopping)
    ));
    assert!(matches!(
        room.assign(wish_of("w2"), Duration::ZERO).await,
        Err(ServiceError::Stopping)
    ));
    telling.abort();
}
