//! `QueueStore` and `ActiveRunStore`.

use super::contract;
use crate::support::{start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    domain::{
        active_run::RunVcs,
        name::RunId,
        queue::{Bucket, QueueKey},
        time::Time,
        vcs::VcsType,
    },
    ports::{
        ActiveRunStore, ActiveRunStoreError, Catalog, HostBackoffs, QueueStore, QueueStoreError,
        active_runs::{ActiveRunUpdate, ClaimRequest, Renewal},
        host_backoff::HostBackoff,
        queue_store::ClaimFilter,
    },
};
use std::{collections::BTreeSet, sync::Arc};

contract!(
    an_empty_queue_has_nothing,
    items_are_served_by_bucket_priority_and_id,
    priorities_count_from_the_smallest,
    adding_again_updates_by_the_rule,
    change_sets_are_queued_apart,
    an_unknown_codebase_queues_nothing,
    a_claim_keeps_every_field,
    a_held_item_is_not_handed_out,
    many_claimers_get_each_item_once,
    filters_choose,
    hosts_are_avoided,
    a_wish_for_a_held_item_waits,
    a_released_item_is_back_in_its_place,
    stale_tokens_are_refused,
    positions_count_held_items,
    removing_leaves_held_items,
    figures_follow,
    lists_are_limited,
    a_failed_batch_leaves_no_trace,
    a_claim_of_another_runner_is_taken_over,
);

async fn codebases(store: &(impl Catalog + ?Sized), names: &[&str]) {
    store
        .upload_codebases(names.iter().map(|name| bare_codebase(name)).collect())
        .await
        .unwrap();
}

fn sign(now: Time) -> Renewal {
    Renewal {
        now,
        lease: TimeDelta::seconds(120),
    }
}

async fn order(store: &(impl QueueStore + ?Sized)) -> Vec<String> {
    store
        .list(100)
        .await
        .unwrap()
        .into_iter()
        .map(|item| item.key.codebase.to_string())
        .collect()
}

async fn an_empty_queue_has_nothing<S: QueueStore + ActiveRunStore>(store: &S) {
    assert_eq!(store.claim(claim("r")).await.unwrap(), None);
    assert_eq!(
        store.peek(&ClaimFilter::default(), start()).await.unwrap(),
        None
    );
    assert_eq!(store.position(&pair("aa", "gen")).await.unwrap(), None);
    assert_eq!(QueueStore::list(store, 10).await.unwrap(), vec![]);
    assert_eq!(ActiveRunStore::list(store).await.unwrap(), vec![]);
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.length, stats.oldest), (0, None));
    assert_eq!(store.enqueue(batch(vec![])).await.unwrap(), vec![]);
}

async fn items_are_served_by_bucket_priority_and_id<S: QueueStore + ActiveRunStore + Catalog>(
    store: &S,
) {
    codebases(store, &["aa", "bb", "cc", "dd"]).await;
    let wishes = vec![
        wish("aa", Bucket::Default, 5.0),
        wish("bb", Bucket::Default, -100.0),
        wish("cc", Bucket::Manual, 900.0),
        wish("dd", Bucket::Default, 105.0),
    ];
    store.enqueue(batch(wishes)).await.unwrap();
    // Priorities: aa 5, bb -95, cc 805, dd 10.
    assert_eq!(order(store).await, ["cc", "bb", "aa", "dd"]);
    for (run, expected) in [("r1", "cc"), ("r2", "bb"), ("r3", "aa"), ("r4", "dd")] {
        let peeked = store
            .peek(&ClaimFilter::default(), start())
            .await
            .unwrap()
            .unwrap();
        let claimed = store.claim(claim(run)).await.unwrap().unwrap();
        assert_eq!(claimed.run.item.key.codebase.as_str(), expected);
        assert_eq!(
            (peeked.item, peeked.codebase),
            (claimed.run.item, claimed.codebase)
        );
    }
    assert_eq!(store.claim(claim("r5")).await.unwrap(), None);
}

async fn priorities_count_from_the_smallest<S: QueueStore + Catalog>(store: &S) {
    codebases(store, &["aa", "bb", "cc"]).await;
    store
        .enqueue(batch(vec![wish("aa", Bucket::Default, 35_000.9)]))
        .await
        .unwrap();
    store
        .enqueue(batch(vec![
            wish("bb", Bucket::Manual, -1.0),
            wish("cc", Bucket::Default, 1.0),
        ]))
        .await
        .unwrap();
    let priorities: Vec<_> = store
        .list(10)
        .await
        .unwrap()
        .into_iter()
        .map(|item| (item.key.codebase.to_string(), item.priority))
        .collect();
    assert_eq!(
        priorities,
        [
            ("bb".into(), 34_999),
            ("aa".into(), 35_000),
            ("cc".into(), 35_000)
        ]
    );
}

async fn adding_again_updates_by_the_rule<S: QueueStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    let first = store
        .enqueue(batch(vec![wish("aa", Bucket::Hook, 3.0)]))
        .await
        .unwrap()[0];
    let later = store
        .enqueue(batch(vec![wish("aa", Bucket::Default, -9.0)]))
        .await
        .unwrap()[0];
    assert_eq!(
        (later.queue_id, later.bucket),
        (first.queue_id, Bucket::Hook)
    );
    let mut earlier = wish("aa", Bucket::Manual, 50.0);
    earlier.command = "other".into();
    earlier.refresh = true;
    let earlier = store.enqueue(batch(vec![earlier])).await.unwrap()[0];
    assert_eq!(
        (earlier.queue_id, earlier.bucket),
        (first.queue_id, Bucket::Manual)
    );
    let items = store.list(10).await.unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(
        (
            items[0].priority,
            items[0].command.as_str(),
            items[0].refresh
        ),
        (53, "other", true)
    );
}

async fn change_sets_are_queued_apart<S: QueueStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    let grouped = |set: &str| {
        let mut wish = wish("aa", Bucket::Default, 1.0);
        wish.key = QueueKey {
            change_set: Some(set.into()),
            ..wish.key
        };
        wish
    };
    let queued = store
        .enqueue(batch(vec![
            wish("aa", Bucket::Default, 1.0),
            grouped("x"),
            grouped("y"),
            grouped("x"),
        ]))
        .await
        .unwrap();
    let ids: BTreeSet<_> = queued.iter().map(|q| q.queue_id).collect();
    assert_eq!((ids.len(), queued[1].queue_id), (3, queued[3].queue_id));
}

async fn an_unknown_codebase_queues_nothing<S: QueueStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    let refused = store
        .enqueue(batch(vec![
            wish("aa", Bucket::Default, 1.0),
            wish("nowhere", Bucket::Default, 1.0),
        ]))
        .await;
    assert!(
        matches!(refused, Err(QueueStoreError::UnknownCodebase(name)) if name.as_str() == "nowhere")
    );
    assert_eq!(store.list(10).await.unwrap(), vec![]);
}

async fn a_claim_keeps_every_field<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    store
        .upload_codebases(vec![full_codebase("aa")])
        .await
        .unwrap();
    store
        .enqueue(batch(vec![wish("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let now = start() + TimeDelta::microseconds(123_456);
    let claimed = store
        .claim(ClaimRequest { now, ..claim("r1") })
        .await
        .unwrap()
        .unwrap();
    assert_eq!(claimed.codebase, full_codebase("aa"));
    assert_eq!((claimed.run.start_time, claimed.run.keepalive), (now, now));
    assert_eq!(
        store.get(&RunId::new("r1")).await.unwrap().unwrap(),
        claimed.run
    );
    let vcs = RunVcs {
        vcs_type: Some(VcsType::Bzr),
        branch_url: Some("u".into()),
        subpath: Some("s".into()),
    };
    let details = ActiveRunUpdate::Probed {
        vcs: vcs.clone(),
        resume_from: Some(RunId::new("r0")),
    };
    store
        .update(&claimed.run.id, &claimed.run.token, details)
        .await
        .unwrap();
    let amended = store.get(&RunId::new("r1")).await.unwrap().unwrap();
    assert_eq!(
        (amended.vcs, amended.resume_from),
        (vcs, Some(RunId::new("r0")))
    );
    assert_eq!(store.get(&RunId::new("r2")).await.unwrap(), None);
}

async fn a_held_item_is_not_handed_out<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    store
        .enqueue(batch(vec![wish("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    store.claim(claim("r1")).await.unwrap().unwrap();
    assert_eq!(store.claim(claim("r2")).await.unwrap(), None);
    assert_eq!(
        store.peek(&ClaimFilter::default(), start()).await.unwrap(),
        None
    );
    let by_codebase = ClaimFilter {
        codebase: Some(codebase_name("aa")),
        ..Default::default()
    };
    assert_eq!(
        store
            .claim(ClaimRequest {
                filter: by_codebase,
                ..claim("r3")
            })
            .await
            .unwrap(),
        None
    );
    assert_eq!(order(store).await, ["aa"]);
}

async fn many_claimers_get_each_item_once<
    S: QueueStore + ActiveRunStore + Catalog + Clone + 'static,
>(
    store: &S,
) {
    let names: Vec<String> = (0..200).map(|n| format!("cb{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    codebases(store, &names).await;
    store
        .enqueue(batch(
            names
                .iter()
                .map(|name| wish(name, Bucket::Default, 1.0))
                .collect(),
        ))
        .await
        .unwrap();
    let store = Arc::new(store.clone());
    let claimers = (0..32).map(|claimer| {
        let store = store.clone();
        tokio::spawn(async move {
            let mut got = vec![];
            for number in 0.. {
                match store
                    .claim(claim(&format!("r{claimer}-{number}")))
                    .await
                    .unwrap()
                {
                    Some(claimed) => got.push(claimed.run.item.id),
                    None => return got,
                }
            }
            got
        })
    });
    let mut all = vec![];
    for claimer in claimers.collect::<Vec<_>>() {
        all.extend(claimer.await.unwrap());
    }
    let distinct: BTreeSet<_> = all.iter().collect();
    assert_eq!((all.len(), distinct.len()), (200, 200));
}

async fn filters_choose<S: QueueStore + Catalog>(store: &S) {
    codebases(store, &["aa", "bb"]).await;
    let mut other = wish("bb", Bucket::Default, 1.0);
    other.key = key("bb", "other");
    store
        .enqueue(batch(vec![
            wish("aa", Bucket::Default, 1.0),
            wish("bb", Bucket::Default, 1.0),
            other,
        ]))
        .await
        .unwrap();
    let next = |filter: ClaimFilter| async move {
        store
            .peek(&filter, start())
            .await
            .unwrap()
            .map(|next| next.item.key)
    };
    assert_eq!(
        next(ClaimFilter {
            codebase: Some(codebase_name("bb")),
            ..Default::default()
        })
        .await,
        Some(key("bb", "gen"))
    );
    assert_eq!(
        next(ClaimFilter {
            campaign: Some(campaign_name("other")),
            ..Default::default()
        })
        .await,
        Some(key("bb", "other"))
    );
    assert_eq!(
        next(ClaimFilter {
            codebase: Some(codebase_name("aa")),
            campaign: Some(campaign_name("other")),
            ..Default::default()
        })
        .await,
        None
    );
    assert_eq!(
        next(ClaimFilter {
            except: vec![key("aa", "gen")],
            ..Default::default()
        })
        .await,
        Some(key("bb", "gen"))
    );
}

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
            wish("aa", Bucket::Default, 1.0),
            wish("bb", Bucket::Default, 1.0),
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

async fn a_wish_for_a_held_item_waits<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    store
        .enqueue(batch(vec![wish("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let held = store.claim(claim("r1")).await.unwrap().unwrap().run;
    let mut again = wish("aa", Bucket::Manual, 1.0);
    again.command = "newer".into();
    let answer = store.enqueue(batch(vec![again])).await.unwrap()[0];
    assert_eq!(
        (answer.queue_id, answer.bucket),
        (held.item.id, Bucket::Default)
    );
    assert_eq!(store.claim(claim("r2")).await.unwrap(), None);
    store.release(&held.id, &held.token, start()).await.unwrap();
    let next = store.claim(claim("r3")).await.unwrap().unwrap().run;
    assert_eq!(
        (next.item.command.as_str(), next.item.bucket, next.item.id),
        ("newer", Bucket::Manual, held.item.id)
    );
}

async fn a_released_item_is_back_in_its_place<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa", "bb"]).await;
    store
        .enqueue(batch(vec![
            wish("aa", Bucket::Default, 1.0),
            wish("bb", Bucket::Default, 1.0),
        ]))
        .await
        .unwrap();
    let held = store.claim(claim("r1")).await.unwrap().unwrap().run;
    store.release(&held.id, &held.token, start()).await.unwrap();
    assert_eq!(store.get(&held.id).await.unwrap(), None);
    assert_eq!(
        store.claim(claim("r2")).await.unwrap().unwrap().run.item,
        held.item
    );
}

async fn stale_tokens_are_refused<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    store
        .enqueue(batch(vec![wish("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let held = store.claim(claim("r1")).await.unwrap().unwrap().run;
    let later = start() + TimeDelta::seconds(5);
    assert!(matches!(
        store.renew(&held.id, "wrong", sign(later)).await,
        Err(ActiveRunStoreError::ClaimLost(_))
    ));
    assert!(matches!(
        store.release(&held.id, "wrong", later).await,
        Err(ActiveRunStoreError::ClaimLost(_))
    ));
    assert!(matches!(
        store
            .update(&held.id, "wrong", ActiveRunUpdate::Pinged { failures: 1 })
            .await,
        Err(ActiveRunStoreError::ClaimLost(_))
    ));
    store
        .renew(&held.id, &held.token, sign(later))
        .await
        .unwrap();
    store
        .renew(&held.id, &held.token, sign(start()))
        .await
        .unwrap();
    assert_eq!(store.get(&held.id).await.unwrap().unwrap().keepalive, later);
    store.release(&held.id, &held.token, later).await.unwrap();
    assert!(matches!(
        store.renew(&held.id, &held.token, sign(later)).await,
        Err(ActiveRunStoreError::ClaimLost(_))
    ));
}

async fn positions_count_held_items<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa", "bb", "cc"]).await;
    store
        .enqueue(batch(
            ["aa", "bb", "cc"]
                .map(|name| wish(name, Bucket::Default, 0.0))
                .into(),
        ))
        .await
        .unwrap();
    store.claim(claim("r1")).await.unwrap().unwrap();
    let found = store.position(&pair("cc", "gen")).await.unwrap().unwrap();
    assert_eq!((found.position, found.wait_time), (3, 20.0));
    let first = store.position(&pair("aa", "gen")).await.unwrap().unwrap();
    assert_eq!((first.position, first.wait_time), (1, 0.0));
    assert_eq!(store.position(&pair("aa", "other")).await.unwrap(), None);
}

async fn removing_leaves_held_items<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa", "bb"]).await;
    let queued = store
        .enqueue(batch(vec![
            wish("aa", Bucket::Default, 1.0),
            wish("bb", Bucket::Default, 1.0),
        ]))
        .await
        .unwrap();
    store.claim(claim("r1")).await.unwrap().unwrap();
    let ids: Vec<_> = queued.iter().map(|q| q.queue_id).chain([999]).collect();
    assert_eq!(store.remove(&ids).await.unwrap(), [queued[1].queue_id]);
    assert_eq!(order(store).await, ["aa"]);
    assert_eq!(
        store.waiting(&campaign_name("gen"), None).await.unwrap(),
        vec![]
    );
}

async fn figures_follow<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa", "bb"]).await;
    let mut later = batch(vec![wish("bb", Bucket::Manual, 1.0)]);
    later.now = start() + TimeDelta::minutes(1);
    store
        .enqueue(batch(vec![wish("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    store.enqueue(later).await.unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.length, stats.oldest), (2, Some(start())));
    assert_eq!(
        stats.by_bucket.into_iter().collect::<Vec<_>>(),
        [(Bucket::Manual, 1), (Bucket::Default, 1)]
    );
    assert_eq!(
        stats.by_campaign.into_iter().collect::<Vec<_>>(),
        [("gen".to_owned(), 2)]
    );
    let ids: Vec<_> = QueueStore::list(store, 9)
        .await
        .unwrap()
        .iter()
        .map(|item| item.id)
        .collect();
    store.remove(&ids).await.unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!(
        (stats.length, stats.by_bucket.len(), stats.by_campaign.len()),
        (0, 0, 0)
    );
}

async fn lists_are_limited<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa", "bb", "cc"]).await;
    store
        .enqueue(batch(
            ["aa", "bb", "cc"]
                .map(|name| wish(name, Bucket::Default, 0.0))
                .into(),
        ))
        .await
        .unwrap();
    store.claim(claim("r1")).await.unwrap().unwrap();
    let first: Vec<_> = QueueStore::list(store, 2)
        .await
        .unwrap()
        .into_iter()
        .map(|item| item.key.codebase.to_string())
        .collect();
    assert_eq!(first, ["aa", "bb"]);
    assert_eq!(QueueStore::list(store, 0).await.unwrap(), vec![]);
    let waiting: Vec<_> = store
        .waiting(&campaign_name("gen"), Some(codebase_name("cc")))
        .await
        .unwrap();
    assert_eq!(waiting.len(), 1);
}

async fn a_failed_batch_leaves_no_trace<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    let refused = store
        .enqueue(batch(vec![
            wish("aa", Bucket::Manual, 1.0),
            wish("nowhere", Bucket::Default, 1.0),
        ]))
        .await;
    assert!(refused.is_err());
    let stats = store.stats().await.unwrap();
    assert_eq!(
        (stats.length, stats.oldest, stats.by_bucket.len()),
        (0, None, 0)
    );
    assert_eq!(store.claim(claim("r1")).await.unwrap(), None);
    let queued = store
        .enqueue(batch(vec![wish("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    assert_eq!(
        store.claim(claim("r2")).await.unwrap().unwrap().run.item.id,
        queued[0].queue_id
    );
}

async fn a_claim_of_another_runner_is_taken_over<S: QueueStore + ActiveRunStore + Catalog>(
    store: &S,
) {
    codebases(store, &["aa", "bb"]).await;
    store
        .enqueue(batch(vec![
            wish("aa", Bucket::Default, 1.0),
            wish("bb", Bucket::Default, 1.0),
        ]))
        .await
        .unwrap();
    let mut foreign = store.claim(claim("r1")).await.unwrap().unwrap().run;
    store
        .release(&foreign.id, &foreign.token, start())
        .await
        .unwrap();
    foreign.token = "theirs".into();
    assert!(store.adopt(foreign.clone()).await.unwrap());
    assert_eq!(store.get(&foreign.id).await.unwrap().unwrap(), foreign);
    assert!(!store.adopt(foreign.clone()).await.unwrap());
    let other = janitor_runner::domain::active_run::ActiveRun {
        id: RunId::new("r2"),
        ..foreign.clone()
    };
    assert!(!store.adopt(other).await.unwrap());
    assert_eq!(
        store
            .claim(claim("r3"))
            .await
            .unwrap()
            .unwrap()
            .run
            .item
            .key
            .codebase
            .as_str(),
        "bb"
    );
    store
        .renew(&foreign.id, "theirs", sign(start()))
        .await
        .unwrap();
}
