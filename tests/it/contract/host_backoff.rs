//! `HostBackoffs`.

use super::contract;
use crate::support::{start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    domain::queue::Bucket,
    ports::{
        ActiveRunStore, Catalog, HostBackoffs, QueueStore, host_backoff::HostBackoff,
        queue_store::ClaimFilter,
    },
};

contract!(
    hosts_are_avoided,
    ended_backoff_is_gone,
    codebase_that_moved_is_not_passed_over_any_more,
    ended_backoffs_are_removed_in_time,
);

async fn hosts_are_avoided<S: QueueStore + HostBackoffs + ActiveRunStore + Catalog>(store: &S) {
    store
        .upload_codebases(vec![
            codebase_at("aa", "https://u@slow.example/x"),
            codebase_at("bb", "https://fast.example/x"),
        ])
        .await
        .unwrap();
    store
        .enqueue(batch(vec![
            enqueue_request("aa", Bucket::Default, 1.0),
            enqueue_request("bb", Bucket::Default, 1.0),
        ]))
        .await
        .unwrap();
    let next = |filter: ClaimFilter, now| async move {
        store
            .peek(&filter, now)
            .await
            .unwrap()
            .map(|next| next.item.key.codebase.to_string())
    };
    assert_eq!(
        next(
            ClaimFilter {
                avoid_hosts: vec!["slow.example".into()],
                ..Default::default()
            },
            start()
        )
        .await
        .unwrap(),
        "bb"
    );
    let until = start() + TimeDelta::minutes(2);
    store
        .back_off_host(HostBackoff {
            host: "slow.example".into(),
            until,
        })
        .await
        .unwrap();
    store
        .back_off_host(HostBackoff {
            host: "slow.example".into(),
            until: start(),
        })
        .await
        .unwrap();
    assert_eq!(
        store.backed_off_hosts(start()).await.unwrap(),
        [HostBackoff {
            host: "slow.example".into(),
            until
        }]
    );
    assert_eq!(next(ClaimFilter::default(), start()).await.unwrap(), "bb");
    assert_eq!(next(ClaimFilter::default(), until).await.unwrap(), "aa");
    assert_eq!(store.backed_off_hosts(until).await.unwrap(), vec![]);
}

async fn ended_backoff_is_gone<S: HostBackoffs>(store: &S) {
    let until = start() + TimeDelta::minutes(5);
    assert!(!store.end_backoff("slow.example").await.unwrap());
    for host in ["slow.example", "other.example"] {
        let host = host.to_owned();
        store
            .back_off_host(HostBackoff { host, until })
            .await
            .unwrap();
    }
    assert!(store.end_backoff("slow.example").await.unwrap());
    let left = store.backed_off_hosts(start()).await.unwrap();
    let hosts: Vec<&str> = left.iter().map(|backoff| backoff.host.as_str()).collect();
    assert_eq!(hosts, ["other.example"]);
}

async fn ended_backoffs_are_removed_in_time<S: HostBackoffs>(store: &S) {
    let back_off = async |host: &str, hours: i64| {
        let (host, until) = (host.to_owned(), start() + TimeDelta::hours(hours));
        let backoff = HostBackoff { host, until };
        store.back_off_host(backoff).await.unwrap();
    };
    back_off("old.example", 1).await;
    back_off("new.example", 20).await;
    back_off("now.example", 30).await;
    assert!(!store.end_backoff("old.example").await.unwrap());
    assert!(store.end_backoff("new.example").await.unwrap());
    assert!(store.end_backoff("now.example").await.unwrap());
}

async fn codebase_that_moved_is_not_passed_over_any_more<
    S: QueueStore + HostBackoffs + ActiveRunStore + Catalog,
>(
    store: &S,
) {
    let at = async |url: &str| {
        let codebases = vec![codebase_at("aa", url)];
        store.upload_codebases(codebases).await.unwrap();
    };
    at("https://slow.example/x").await;
    let request = batch(vec![enqueue_request("aa", Bucket::Default, 1.0)]);
    store.enqueue(request).await.unwrap();
    let host = "slow.example".to_owned();
    let until = start() + TimeDelta::minutes(5);
    store
        .back_off_host(HostBackoff { host, until })
        .await
        .unwrap();
    let next = async || store.peek(&ClaimFilter::default(), start()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(next().await, None);
    }
    at("https://fast.example/x").await;
    assert!(next().await.is_some());
    at("https://slow.example/x").await;
    assert_eq!(next().await, None);
}
