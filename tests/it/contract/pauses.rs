//! `PauseStore`: pauses and concurrency limits.

use super::{contract, steps::*};
use crate::support::{start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    domain::{
        active_run::Claimant,
        pause::{ConcurrencyLimit, Pause},
        queue::Bucket,
        time::Time,
    },
    ports::{
        ActiveRunStore, Catalog, PauseStore, QueueStore, RunRecorder, RunStore,
        active_runs::ClaimRequest, queue_store::ClaimFilter,
    },
};
use std::{collections::BTreeMap, sync::Arc};

contract!(
    pauses_are_listed_until_ended,
    paused_items_are_skipped_in_place,
    paused_worker_claims_nothing,
    paused_node_claims_nothing,
    pause_expires_at_its_end_time,
    limits_are_listed_until_removed,
    concurrency_limit_blocks_further_claims,
    concurrent_claims_respect_limits,
);

async fn queued_at_hosts<S: QueueStore + Catalog>(store: &S, names: &[&str]) {
    let at = |name: &&str| codebase_at(name, &format!("https://{}.example/{name}", &name[..1]));
    store
        .upload_codebases(names.iter().map(at).collect())
        .await
        .unwrap();
    store
        .enqueue(batch(
            names
                .iter()
                .map(|name| enqueue_request(name, Bucket::Default, 1.0))
                .collect(),
        ))
        .await
        .unwrap();
}

async fn next<S: QueueStore>(store: &S, now: Time) -> Option<String> {
    store
        .peek(&ClaimFilter::default(), now)
        .await
        .unwrap()
        .map(|next| next.item.key.codebase.to_string())
}

async fn pauses_are_listed_until_ended<S: PauseStore>(store: &S) {
    let until = Pause {
        until: Some(start() + TimeDelta::hours(1)),
        ..pause("campaign", "gen")
    };
    store.pause(pause("host", "h.example")).await.unwrap();
    store.pause(pause("all", "")).await.unwrap();
    store.pause(pause("campaign", "gen")).await.unwrap();
    store.pause(until.clone()).await.unwrap();
    assert_eq!(
        store.pauses(start()).await.unwrap(),
        [pause("all", ""), until.clone(), pause("host", "h.example")]
    );
    assert_eq!(
        store
            .pauses(start() + TimeDelta::hours(1))
            .await
            .unwrap()
            .len(),
        2
    );
    assert!(store.unpause(&scope("host", "h.example")).await.unwrap());
    assert!(!store.unpause(&scope("host", "h.example")).await.unwrap());
    assert_eq!(
        store.pauses(start()).await.unwrap(),
        [pause("all", ""), until]
    );
}

async fn paused_items_are_skipped_in_place<
    S: QueueStore + ActiveRunStore + Catalog + PauseStore,
>(
    store: &S,
) {
    queued_at_hosts(store, &["aa", "bb"]).await;
    for (kind, name, left) in [
        ("codebase", "aa", Some("bb")),
        ("codebase", "bb", Some("aa")),
        ("host", "a.example", Some("bb")),
        ("campaign", "gen", None),
        ("campaign", "other", Some("aa")),
        ("bucket", "default", None),
        ("bucket", "manual", Some("aa")),
        ("all", "", None),
    ] {
        store.pause(pause(kind, name)).await.unwrap();
        assert_eq!(next(store, start()).await.as_deref(), left, "{kind} {name}");
        if left.is_none() {
            assert_eq!(
                store.claim(claim("r")).await.unwrap(),
                None,
                "{kind} {name}"
            );
        }
        assert_eq!(QueueStore::list(store, 9).await.unwrap().len(), 2);
        assert!(store.unpause(&scope(kind, name)).await.unwrap());
        assert_eq!(
            next(store, start()).await.as_deref(),
            Some("aa"),
            "{kind} {name}"
        );
    }
}

async fn paused_worker_claims_nothing<S: QueueStore + ActiveRunStore + Catalog + PauseStore>(
    store: &S,
) {
    queued_at_hosts(store, &["aa", "bb"]).await;
    let by = |worker: &str, run: &str| ClaimRequest {
        claimant: Claimant {
            worker: Some(worker.into()),
            ..Claimant::default()
        },
        ..claim(run)
    };
    store.pause(pause("worker", "w1")).await.unwrap();
    assert_eq!(store.claim(by("w1", "r1")).await.unwrap(), None);
    let (none, some) = tokio::join!(store.claim(by("w1", "r2")), store.claim(by("w2", "r3")));
    assert!(none.unwrap().is_none());
    assert!(some.unwrap().is_some());
    store.unpause(&scope("worker", "w1")).await.unwrap();
    assert!(store.claim(by("w1", "r4")).await.unwrap().is_some());
}

async fn paused_node_claims_nothing<S: QueueStore + ActiveRunStore + Catalog + PauseStore>(
    store: &S,
) {
    queued_at_hosts(store, &["aa", "bb", "cc"]).await;
    let by = |node: Option<&str>, run: &str| ClaimRequest {
        claimant: Claimant {
            worker: Some("fleet".into()),
            node: node.map(Into::into),
            ..Claimant::default()
        },
        ..claim(run)
    };
    store.pause(pause("worker", "fleet/n1")).await.unwrap();
    assert_eq!(store.claim(by(Some("n1"), "r1")).await.unwrap(), None);
    assert!(store.claim(by(Some("n2"), "r2")).await.unwrap().is_some());
    assert!(store.claim(by(None, "r3")).await.unwrap().is_some());
    store.pause(pause("worker", "fleet")).await.unwrap();
    assert_eq!(store.claim(by(Some("n2"), "r4")).await.unwrap(), None);
    store.unpause(&scope("worker", "fleet")).await.unwrap();
    store.unpause(&scope("worker", "fleet/n1")).await.unwrap();
    let claimed = store.claim(by(Some("n1"), "r5")).await.unwrap().unwrap();
    assert_eq!(claimed.run.claimant.node.as_deref(), Some("n1"));
    let stored = store.get(&claimed.run.id).await.unwrap().unwrap();
    assert_eq!(stored.claimant.node.as_deref(), Some("n1"));
}

async fn pause_expires_at_its_end_time<S: QueueStore + Catalog + PauseStore>(store: &S) {
    queued_at_hosts(store, &["aa"]).await;
    let until = start() + TimeDelta::minutes(5);
    store
        .pause(Pause {
            until: Some(until),
            ..pause("all", "")
        })
        .await
        .unwrap();
    assert_eq!(next(store, until - TimeDelta::seconds(1)).await, None);
    assert_eq!(next(store, until).await.as_deref(), Some("aa"));
}

async fn limits_are_listed_until_removed<S: PauseStore>(store: &S) {
    let limit = |kind, name, most| ConcurrencyLimit {
        scope: scope(kind, name),
        most,
    };
    store
        .set_limit(limit("host", "h.example", 9))
        .await
        .unwrap();
    store
        .set_limit(limit("host", "h.example", 3))
        .await
        .unwrap();
    store.set_limit(limit("campaign", "gen", 0)).await.unwrap();
    assert_eq!(
        store.limits().await.unwrap(),
        [limit("campaign", "gen", 0), limit("host", "h.example", 3)]
    );
    assert!(store.remove_limit(&scope("campaign", "gen")).await.unwrap());
    assert!(!store.remove_limit(&scope("campaign", "gen")).await.unwrap());
    assert_eq!(
        store.limits().await.unwrap(),
        [limit("host", "h.example", 3)]
    );
}

async fn concurrency_limit_blocks_further_claims<
    S: QueueStore + RunRecorder + Catalog + PauseStore + ActiveRunStore + RunStore,
>(
    store: &S,
) {
    queued_at_hosts(store, &["aa", "ab", "bb"]).await;
    store
        .set_limit(ConcurrencyLimit {
            scope: scope("host", "a.example"),
            most: 1,
        })
        .await
        .unwrap();
    let first = store.claim(claim("r1")).await.unwrap().unwrap().run;
    assert_eq!(first.item.key.codebase.as_str(), "aa");
    assert_eq!(first.host.as_deref(), Some("a.example"));
    assert_eq!(next(store, start()).await.as_deref(), Some("bb"));
    let second = store.claim(claim("r2")).await.unwrap().unwrap().run;
    assert_eq!(second.item.key.codebase.as_str(), "bb");
    assert_eq!(store.claim(claim("r3")).await.unwrap(), None);
    store
        .record(new_run(&first, full_run(&first)))
        .await
        .unwrap();
    assert_eq!(
        store
            .claim(claim("r4"))
            .await
            .unwrap()
            .unwrap()
            .run
            .item
            .key
            .codebase
            .as_str(),
        "ab"
    );
    store
        .set_limit(ConcurrencyLimit {
            scope: scope("campaign", "gen"),
            most: 0,
        })
        .await
        .unwrap();
    queued_at_hosts(store, &["cc"]).await;
    assert_eq!(store.claim(claim("r5")).await.unwrap(), None);
    store.remove_limit(&scope("campaign", "gen")).await.unwrap();
    assert_eq!(
        store
            .claim(claim("r6"))
            .await
            .unwrap()
            .unwrap()
            .run
            .item
            .key
            .codebase
            .as_str(),
        "cc"
    );
}

async fn concurrent_claims_respect_limits<
    S: QueueStore + ActiveRunStore + Catalog + PauseStore + Clone + 'static,
>(
    store: &S,
) {
    let names: Vec<String> = (0..60)
        .map(|n| format!("{}b{n}", ["a", "b", "c"][n % 3]))
        .collect();
    queued_at_hosts(store, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    store
        .set_limit(ConcurrencyLimit {
            scope: scope("host", "a.example"),
            most: 5,
        })
        .await
        .unwrap();
    store
        .set_limit(ConcurrencyLimit {
            scope: scope("campaign", "gen"),
            most: 30,
        })
        .await
        .unwrap();
    let store = Arc::new(store.clone());
    let claimers = (0..60).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            store
                .claim(claim(&format!("r{number}")))
                .await
                .unwrap()
                .map(|claimed| claimed.run.host.unwrap())
        })
    });
    let mut by_host: BTreeMap<String, usize> = BTreeMap::new();
    for claimer in claimers.collect::<Vec<_>>() {
        if let Some(host) = claimer.await.unwrap() {
            *by_host.entry(host).or_default() += 1;
        }
    }
    assert_eq!(by_host["a.example"], 5, "{by_host:?}");
    assert_eq!(by_host.values().sum::<usize>(), 30, "{by_host:?}");
}
