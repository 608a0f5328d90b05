//! `QueueStore`.

use super::{contract, steps::*};
use crate::support::{start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    domain::queue::{Bucket, QueueKey},
    ports::{ActiveRunStore, Catalog, QueueStore, QueueStoreError, queue_store::ClaimFilter},
};
use std::collections::BTreeSet;

contract!(
    empty_queue_returns_nothing,
    items_are_claimed_by_bucket_priority_and_id,
    offsets_are_relative_to_the_smallest_priority,
    enqueuing_again_merges_into_the_item,
    change_sets_have_separate_items,
    unknown_codebase_rejects_the_whole_batch,
    claim_filter_restricts_items,
    enqueue_of_claimed_item_is_deferred,
    positions_count_claimed_items,
    remove_leaves_claimed_items,
    stats_track_enqueue_and_remove,
    list_returns_at_most_the_limit,
    failed_batch_changes_nothing,
);

async fn empty_queue_returns_nothing<S: QueueStore + ActiveRunStore>(store: &S) {
    assert_eq!(store.claim(claim("r")).await.unwrap(), None);
    assert_eq!(
        store.peek(&ClaimFilter::default(), start()).await.unwrap(),
        None
    );
    assert_eq!(store.position(&pair("aa", "gen")).await.unwrap(), None);
    assert_eq!(QueueStore::list(store, 10).await.unwrap(), vec![]);
    assert_eq!(ActiveRunStore::list(store).await.unwrap(), vec![]);
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.length, 0);
    assert_eq!(stats.oldest, None);
    assert_eq!(store.enqueue(batch(vec![])).await.unwrap(), vec![]);
}

async fn items_are_claimed_by_bucket_priority_and_id<S: QueueStore + ActiveRunStore + Catalog>(
    store: &S,
) {
    codebases(store, &["aa", "bb", "cc", "dd"]).await;
    let requests = vec![
        enqueue_request("aa", Bucket::Default, 5.0),
        enqueue_request("bb", Bucket::Default, -100.0),
        enqueue_request("cc", Bucket::Manual, 900.0),
        enqueue_request("dd", Bucket::Default, 105.0),
    ];
    store.enqueue(batch(requests)).await.unwrap();
    // Priorities: aa 5, bb -95, cc 805, dd 10.
    assert_eq!(queue_order(store).await, ["cc", "bb", "aa", "dd"]);
    for (run, expected) in [("r1", "cc"), ("r2", "bb"), ("r3", "aa"), ("r4", "dd")] {
        let peeked = store
            .peek(&ClaimFilter::default(), start())
            .await
            .unwrap()
            .unwrap();
        let claimed = store.claim(claim(run)).await.unwrap().unwrap();
        assert_eq!(claimed.run.item.key.codebase.as_str(), expected);
        assert_eq!(peeked.item, claimed.run.item);
        assert_eq!(peeked.codebase, claimed.codebase);
    }
    assert_eq!(store.claim(claim("r5")).await.unwrap(), None);
}

async fn offsets_are_relative_to_the_smallest_priority<S: QueueStore + Catalog>(store: &S) {
    codebases(store, &["aa", "bb", "cc"]).await;
    store
        .enqueue(batch(vec![enqueue_request(
            "aa",
            Bucket::Default,
            35_000.9,
        )]))
        .await
        .unwrap();
    store
        .enqueue(batch(vec![
            enqueue_request("bb", Bucket::Manual, -1.0),
            enqueue_request("cc", Bucket::Default, 1.0),
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

async fn enqueuing_again_merges_into_the_item<S: QueueStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    let first = store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Hook, 3.0)]))
        .await
        .unwrap()[0];
    let later = store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Default, -9.0)]))
        .await
        .unwrap()[0];
    assert_eq!(later.queue_id, first.queue_id);
    assert_eq!(later.bucket, Bucket::Hook);
    let mut earlier = enqueue_request("aa", Bucket::Manual, 50.0);
    earlier.command = "other".into();
    earlier.refresh = true;
    let earlier = store.enqueue(batch(vec![earlier])).await.unwrap()[0];
    assert_eq!(earlier.queue_id, first.queue_id);
    assert_eq!(earlier.bucket, Bucket::Manual);
    let items = store.list(10).await.unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].priority, 53);
    assert_eq!(items[0].command.as_str(), "other");
    assert!(items[0].refresh);
}

async fn change_sets_have_separate_items<S: QueueStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    let grouped = |set: &str| {
        let mut request = enqueue_request("aa", Bucket::Default, 1.0);
        request.key = QueueKey {
            change_set: Some(set.into()),
            ..request.key
        };
        request
    };
    let queued = store
        .enqueue(batch(vec![
            enqueue_request("aa", Bucket::Default, 1.0),
            grouped("x"),
            grouped("y"),
            grouped("x"),
        ]))
        .await
        .unwrap();
    let ids: BTreeSet<_> = queued.iter().map(|q| q.queue_id).collect();
    assert_eq!(ids.len(), 3);
    assert_eq!(queued[1].queue_id, queued[3].queue_id);
}

async fn unknown_codebase_rejects_the_whole_batch<S: QueueStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    let refused = store
        .enqueue(batch(vec![
            enqueue_request("aa", Bucket::Default, 1.0),
            enqueue_request("nowhere", Bucket::Default, 1.0),
        ]))
        .await;
    assert!(
        matches!(refused, Err(QueueStoreError::UnknownCodebase(name)) if name.as_str() == "nowhere")
    );
    assert_eq!(store.list(10).await.unwrap(), vec![]);
}

async fn claim_filter_restricts_items<S: QueueStore + Catalog>(store: &S) {
    codebases(store, &["aa", "bb"]).await;
    let mut other = enqueue_request("bb", Bucket::Default, 1.0);
    other.key = key("bb", "other");
    store
        .enqueue(batch(vec![
            enqueue_request("aa", Bucket::Default, 1.0),
            enqueue_request("bb", Bucket::Default, 1.0),
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

async fn enqueue_of_claimed_item_is_deferred<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let claimed = store.claim(claim("r1")).await.unwrap().unwrap().run;
    let mut again = enqueue_request("aa", Bucket::Manual, 1.0);
    again.command = "newer".into();
    let response = store.enqueue(batch(vec![again])).await.unwrap()[0];
    assert_eq!(response.queue_id, claimed.item.id);
    assert_eq!(response.bucket, Bucket::Default);
    assert_eq!(store.claim(claim("r2")).await.unwrap(), None);
    store
        .release(&claimed.id, &claimed.token, start())
        .await
        .unwrap();
    let next = store.claim(claim("r3")).await.unwrap().unwrap().run;
    assert_eq!(next.item.command.as_str(), "newer");
    assert_eq!(next.item.bucket, Bucket::Manual);
    assert_eq!(next.item.id, claimed.item.id);
}

async fn positions_count_claimed_items<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa", "bb", "cc"]).await;
    store
        .enqueue(batch(
            ["aa", "bb", "cc"]
                .map(|name| enqueue_request(name, Bucket::Default, 0.0))
                .into(),
        ))
        .await
        .unwrap();
    store.claim(claim("r1")).await.unwrap().unwrap();
    let found = store.position(&pair("cc", "gen")).await.unwrap().unwrap();
    assert_eq!(found.position, 3);
    assert!(found.wait_time.total_cmp(&20.0).is_eq(), "{found:?}");
    let first = store.position(&pair("aa", "gen")).await.unwrap().unwrap();
    assert_eq!(first.position, 1);
    assert!(first.wait_time.total_cmp(&0.0).is_eq(), "{first:?}");
    assert_eq!(store.position(&pair("aa", "other")).await.unwrap(), None);
}

async fn remove_leaves_claimed_items<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa", "bb"]).await;
    let queued = store
        .enqueue(batch(vec![
            enqueue_request("aa", Bucket::Default, 1.0),
            enqueue_request("bb", Bucket::Default, 1.0),
        ]))
        .await
        .unwrap();
    store.claim(claim("r1")).await.unwrap().unwrap();
    let ids: Vec<_> = queued.iter().map(|q| q.queue_id).chain([999]).collect();
    assert_eq!(store.remove(&ids).await.unwrap(), [queued[1].queue_id]);
    assert_eq!(queue_order(store).await, ["aa"]);
    assert_eq!(
        store.waiting(&campaign_name("gen"), None).await.unwrap(),
        vec![]
    );
}

async fn stats_track_enqueue_and_remove<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa", "bb"]).await;
    let mut later = batch(vec![enqueue_request("bb", Bucket::Manual, 1.0)]);
    later.now = start() + TimeDelta::minutes(1);
    store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    store.enqueue(later).await.unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.length, 2);
    assert_eq!(stats.oldest, Some(start()));
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
    assert_eq!(stats.length, 0);
    assert_eq!(stats.by_bucket.len(), 0);
    assert_eq!(stats.by_campaign.len(), 0);
}

async fn list_returns_at_most_the_limit<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa", "bb", "cc"]).await;
    store
        .enqueue(batch(
            ["aa", "bb", "cc"]
                .map(|name| enqueue_request(name, Bucket::Default, 0.0))
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

async fn failed_batch_changes_nothing<S: QueueStore + ActiveRunStore + Catalog>(store: &S) {
    codebases(store, &["aa"]).await;
    let refused = store
        .enqueue(batch(vec![
            enqueue_request("aa", Bucket::Manual, 1.0),
            enqueue_request("nowhere", Bucket::Default, 1.0),
        ]))
        .await;
    assert!(refused.is_err());
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.length, 0);
    assert_eq!(stats.oldest, None);
    assert_eq!(stats.by_bucket.len(), 0);
    assert_eq!(store.claim(claim("r1")).await.unwrap(), None);
    let queued = store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    assert_eq!(
        store.claim(claim("r2")).await.unwrap().unwrap().run.item.id,
        queued[0].queue_id
    );
}
