//! `LeaderElection`.
//!
//! What holds for every store: a holder gets a role that nobody else has, keeps it by acquiring it again, and resigning is
//! harmless when it holds nothing. An embedded store belongs to one process, which it always elects; only Postgres has several
//! holders to choose from, and its lease ends by the clock of the database.

use super::contract;
use crate::support::servers;
use janitor_runner::ports::LeaderElection;
use std::time::{Duration, Instant};

contract!(
    sole_holder_acquires_and_renews_a_role,
    resigned_role_can_be_acquired_again,
    resigning_a_role_that_is_not_held_changes_nothing,
);

/// Longer than a test takes.
const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_secs(1);

async fn sole_holder_acquires_and_renews_a_role<S: LeaderElection>(store: &S) {
    assert!(store.acquire("watch", "first", LONG).await.unwrap());
    assert!(store.acquire("watch", "first", LONG).await.unwrap());
    assert!(store.acquire("publish", "first", LONG).await.unwrap());
}

async fn resigned_role_can_be_acquired_again<S: LeaderElection>(store: &S) {
    assert!(store.acquire("watch", "first", LONG).await.unwrap());
    store.resign("watch", "first").await.unwrap();
    assert!(store.acquire("watch", "first", LONG).await.unwrap());
}

async fn resigning_a_role_that_is_not_held_changes_nothing<S: LeaderElection>(store: &S) {
    store.resign("watch", "first").await.unwrap();
    assert!(store.acquire("watch", "first", LONG).await.unwrap());
    store.resign("watch", "second").await.unwrap();
    store.resign("publish", "first").await.unwrap();
    assert!(store.acquire("watch", "first", LONG).await.unwrap());
}

/// Two runner processes on one database.
async fn two_replicas() -> (impl LeaderElection, impl LeaderElection) {
    let url = servers::database().await;
    (
        servers::open_postgres(&url).await,
        servers::open_postgres(&url).await,
    )
}

#[tokio::test]
async fn second_holder_is_refused_until_the_first_resigns() {
    let (first, second) = two_replicas().await;
    assert!(first.acquire("watch", "first", LONG).await.unwrap());
    assert!(!second.acquire("watch", "second", LONG).await.unwrap());
    assert!(second.acquire("publish", "second", LONG).await.unwrap());
    first.resign("watch", "first").await.unwrap();
    assert!(second.acquire("watch", "second", LONG).await.unwrap());
    assert!(!first.acquire("watch", "first", LONG).await.unwrap());
}

#[tokio::test]
async fn second_holder_is_refused_until_the_lease_expires() {
    let (first, second) = two_replicas().await;
    let began = Instant::now();
    assert!(first.acquire("watch", "first", SHORT).await.unwrap());
    while !second.acquire("watch", "second", LONG).await.unwrap() {
        assert!(began.elapsed() < 20 * SHORT, "the lease never expires");
        tokio::time::sleep(SHORT / 20).await;
    }
    assert!(began.elapsed() >= SHORT, "{:?}", began.elapsed());
    assert!(!first.acquire("watch", "first", LONG).await.unwrap());
}

#[tokio::test]
async fn renewal_extends_the_lease_of_a_role() {
    let (first, second) = two_replicas().await;
    assert!(first.acquire("watch", "first", SHORT).await.unwrap());
    assert!(first.acquire("watch", "first", LONG).await.unwrap());
    tokio::time::sleep(SHORT + SHORT / 2).await;
    assert!(!second.acquire("watch", "second", LONG).await.unwrap());
}

#[tokio::test]
async fn resigning_the_role_of_another_holder_is_ignored() {
    let (first, second) = two_replicas().await;
    assert!(first.acquire("watch", "first", LONG).await.unwrap());
    second.resign("watch", "second").await.unwrap();
    assert!(!second.acquire("watch", "second", LONG).await.unwrap());
    assert!(first.acquire("watch", "first", LONG).await.unwrap());
}
