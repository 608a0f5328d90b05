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

fn request_by(worker: &str) -> AssignRequest {
    AssignRequest {
        claimant: Claimant {
            worker: Some(worker.into()),
            ..Claimant::default()
        },
        ..AssignRequest::default()
    }
}

#[tokio::test]
async fn each_long_poller_gets_one_item() {
    let fixture = Fixture::new();
    let long_poll = fixture.long_poll(&CancellationToken::new());
    let notifying = tokio::spawn({
        let long_poll = long_poll.clone();
        async move { long_poll.run().await }
    });
    let waiting: Vec<_> = (0..5)
        .map(|number| {
            let long_poll = long_poll.clone();
            tokio::spawn(async move {
                long_poll
                    .assign(request_by(&format!("w{number}")), Duration::from_secs(20))
                    .await
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
    let names = ["aa", "bb", "cc", "dd", "ee"];
    fixture.queued(&names).await;
    let mut claimed = vec![];
    for waiting in waiting {
        let assignment = tokio::time::timeout(Duration::from_millis(900), waiting)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        claimed.push(assignment.run.item.key.codebase.to_string());
    }
    claimed.sort();
    assert_eq!(claimed, names);
    notifying.abort();
}

#[tokio::test]
async fn long_poll_ends_at_timeout_or_shutdown_and_skips_paused_workers() {
    let fixture = Fixture::new();
    let ending = CancellationToken::new();
    let long_poll = fixture.long_poll(&ending);
    let notifying = tokio::spawn({
        let long_poll = long_poll.clone();
        async move { long_poll.run().await }
    });
    assert!(matches!(
        long_poll
            .assign(request_by("w1"), Duration::from_millis(30))
            .await,
        Err(ServiceError::QueueEmpty)
    ));
    fixture
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
        let long_poll = long_poll.clone();
        tokio::spawn(async move {
            long_poll
                .assign(request_by(worker), Duration::from_secs(20))
                .await
        })
    };
    let paused = wait("w1");
    // The paused worker polls again by the clock; it must not take the place of the one that an item is for.
    for (worker, item, after) in [("w2", "aa", 1000), ("w3", "bb", 30)] {
        tokio::time::sleep(Duration::from_millis(30)).await;
        let other = wait(worker);
        tokio::time::sleep(Duration::from_millis(after)).await;
        fixture.queued(&[item]).await;
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
        long_poll.assign(request_by("w2"), Duration::ZERO).await,
        Err(ServiceError::Stopping)
    ));
    notifying.abort();
}

#[tokio::test]
async fn paused_worker_learns_why_it_is_assigned_nothing() {
    let fixture = Fixture::new();
    let refusal = async |worker: &str, wait: u64| {
        let long_poll = fixture.long_poll(&CancellationToken::new());
        let assigned = long_poll
            .assign(request_by(worker), Duration::from_secs(wait))
            .await;
        assigned.unwrap_err().to_string()
    };
    let pause = |scope| Pause {
        scope,
        reason: "disk full".into(),
        since: start(),
        until: None,
    };
    assert_eq!(refusal("w1", 0).await, "queue empty");
    fixture.queued(&["aa"]).await;
    let of_w1 = pause(Scope::Worker("w1".into()));
    fixture.store.pause(of_w1).await.unwrap();
    for wait in [0, 1] {
        assert_eq!(
            refusal("w1", wait).await,
            "this worker is paused: disk full"
        );
    }
    fixture.store.pause(pause(Scope::All)).await.unwrap();
    assert_eq!(refusal("w2", 0).await, "everything is paused: disk full");
}
