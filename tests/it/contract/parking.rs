//! `Parking`: items that are requeued, parked or snoozed after a run.

use super::{contract, steps::*};
use crate::support::values::*;
use janitor_runner::{
    domain::{
        active_run::ActiveRun,
        name::RunId,
        queue::{Bucket, EnqueueRequest, Interval},
        retry::{Attempts, ItemState, Parked},
    },
    ports::{
        ActiveRunStore, Catalog, Parking, QueueStore, RunRecorder, RunStore, ScheduleStore,
        active_runs::ClaimRequest,
    },
};

contract!(
    requeued_item_keeps_its_position,
    parked_item_is_skipped_until_unparked,
    snoozed_item_is_skipped_until_due,
    enqueue_in_earlier_bucket_unparks_item,
    new_command_or_manual_enqueue_unparks_item,
    deferred_enqueue_clears_snooze,
    run_of_another_runner_is_adopted_though_its_item_is_parked,
    item_in_an_interval_is_claimed_after_it_or_once_asked_for,
);

async fn requeued_item_keeps_its_position<
    S: QueueStore + RunRecorder + Catalog + ActiveRunStore + RunStore + ScheduleStore + Parking,
>(
    store: &S,
) {
    queued(store, &["aa", "bb"]).await;
    let run = leased(store, "r1").await;
    let state = ItemState {
        attempts: Attempts::from([("vanished".into(), 1)]),
        ..ItemState::default()
    };
    requeue_abandoned(store, &run, state.clone()).await;
    assert_eq!(ActiveRunStore::list(store).await.unwrap(), vec![]);
    assert_eq!(store.follow_ups(9).await.unwrap(), vec![]);
    assert!(store.run(&run.id).await.unwrap().unwrap().given_up);
    let entry = store.entry(run.item.id).await.unwrap().unwrap();
    assert_eq!(entry.item, run.item.clone());
    assert_eq!(entry.state, state);
    assert_eq!(leased(store, "r2").await.item, run.item);
    assert_eq!(store.entry(9999).await.unwrap(), None);
}

async fn parked_item_is_skipped_until_unparked<
    S: QueueStore + RunRecorder + Catalog + ActiveRunStore + RunStore + Parking,
>(
    store: &S,
) {
    queued(store, &["aa", "bb"]).await;
    let run = leased(store, "r1").await;
    let state = ItemState {
        parked: Some(Parked {
            reason: "again and again".into(),
            since: at(5),
        }),
        ..ItemState::default()
    };
    requeue_abandoned(store, &run, state.clone()).await;
    let parked = store.parked(None, 9).await.unwrap();
    assert_eq!(
        parked
            .iter()
            .map(|entry| (entry.item.id, entry.state.clone()))
            .collect::<Vec<_>>(),
        [(run.item.id, state)]
    );
    assert_eq!(store.parked(Some(run.item.id), 9).await.unwrap(), vec![]);
    // It keeps its position, and is skipped by claims of its codebase too.
    assert_eq!(QueueStore::list(store, 9).await.unwrap()[0], run.item);
    assert_eq!(
        store
            .position_of(run.item.id)
            .await
            .unwrap()
            .unwrap()
            .position,
        1
    );
    let other = leased(store, "r2").await;
    assert_eq!(other.item.key.codebase.as_str(), "bb");
    let by_name = janitor_runner::ports::queue_store::ClaimFilter {
        codebase: Some(codebase_name("aa")),
        ..Default::default()
    };
    assert_eq!(
        store
            .claim(ClaimRequest {
                filter: by_name,
                ..claim("r3")
            })
            .await
            .unwrap(),
        None
    );
    assert_eq!(store.claim(claim("r4")).await.unwrap(), None);
    assert_eq!(
        store
            .unpark(&[run.item.id, other.item.id, 9999])
            .await
            .unwrap(),
        [run.item.id]
    );
    assert_eq!(
        store.entry(run.item.id).await.unwrap().unwrap().state,
        ItemState::default()
    );
    assert_eq!(leased(store, "r5").await.item, run.item);
}

async fn snoozed_item_is_skipped_until_due<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore + Parking,
>(
    store: &S,
) {
    queued(store, &["aa", "bb"]).await;
    let run = leased(store, "r1").await;
    requeue_abandoned(
        store,
        &run,
        ItemState {
            not_before: Some(at(60)),
            ..ItemState::default()
        },
    )
    .await;
    let peek = |now| async move {
        let next = store
            .peek(
                &janitor_runner::ports::queue_store::ClaimFilter::default(),
                now,
            )
            .await
            .unwrap();
        next.map(|next| next.item.key.codebase.to_string())
    };
    assert_eq!(peek(at(59)).await.unwrap(), "bb");
    assert_eq!(peek(at(60)).await.unwrap(), "aa");
    assert_eq!(store.parked(None, 9).await.unwrap(), vec![]);
    assert_eq!(store.unpark(&[run.item.id]).await.unwrap(), [run.item.id]);
    assert_eq!(peek(at(0)).await.unwrap(), "aa");
}

async fn enqueue_in_earlier_bucket_unparks_item<
    S: QueueStore + RunRecorder + ActiveRunStore + Catalog + RunStore,
>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let run = leased(store, "r1").await;
    requeue_abandoned(
        store,
        &run,
        ItemState {
            parked: Some(Parked {
                reason: "x".into(),
                since: at(5),
            }),
            ..ItemState::default()
        },
    )
    .await;
    store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Default, -50.0)]))
        .await
        .unwrap();
    assert_eq!(store.claim(claim("r2")).await.unwrap(), None);
    store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Manual, 1.0)]))
        .await
        .unwrap();
    assert_eq!(leased(store, "r3").await.item.id, run.item.id);
}

async fn new_command_or_manual_enqueue_unparks_item<
    S: QueueStore + RunRecorder + ActiveRunStore + Catalog + RunStore,
>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let parked = ItemState {
        parked: Some(Parked {
            reason: "x".into(),
            since: at(5),
        }),
        ..ItemState::default()
    };
    let other = EnqueueRequest {
        command: "another".into(),
        ..enqueue_request("aa", Bucket::Default, 1.0)
    };
    let by_hand = enqueue_request("aa", Bucket::Manual, 1.0);
    for (number, request) in [other, by_hand.clone(), by_hand].into_iter().enumerate() {
        let run = leased(store, &format!("r{number}")).await;
        requeue_abandoned(store, &run, parked.clone()).await;
        assert_eq!(store.claim(claim("none")).await.unwrap(), None);
        store.enqueue(batch(vec![request.clone()])).await.unwrap();
        let next = leased(store, &format!("again{number}")).await;
        assert_eq!(next.item.id, run.item.id);
        assert_eq!(next.item.command, request.command);
        requeue_abandoned(store, &next, ItemState::default()).await;
    }
}

async fn item_in_an_interval_is_claimed_after_it_or_once_asked_for<
    S: QueueStore + ActiveRunStore + Catalog + Parking,
>(
    store: &S,
) {
    queued(store, &["zz"]).await;
    store
        .upload_codebases(vec![bare_codebase("aa"), bare_codebase("bb")])
        .await
        .unwrap();
    let interval = Interval {
        until: at(600),
        repeats: 3,
    };
    let in_interval = |codebase: &str, offset| EnqueueRequest {
        interval: Some(interval),
        ..enqueue_request(codebase, Bucket::Default, offset)
    };
    store
        .enqueue(batch(vec![
            in_interval("aa", -50.0),
            in_interval("bb", -70.0),
        ]))
        .await
        .unwrap();
    // An item behind them is claimed.
    let run = leased(store, "r1").await;
    assert_eq!(run.item.key.codebase.as_str(), "zz");
    assert_eq!(store.claim(claim("none")).await.unwrap(), None);
    // Somebody asks for one: it is claimed, wherever that puts it in the queue.
    store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Default, 9.0)]))
        .await
        .unwrap();
    let run = leased(store, "r2").await;
    assert_eq!(run.item.key.codebase.as_str(), "aa");
    assert_eq!(store.claim(claim("none")).await.unwrap(), None);
    let later = |seconds| ClaimRequest {
        now: at(seconds),
        ..claim("r3")
    };
    assert_eq!(store.claim(later(599)).await.unwrap(), None);
    let run = store.claim(later(601)).await.unwrap().unwrap().run;
    assert_eq!(run.item.key.codebase.as_str(), "bb");
    let state = store.entry(run.item.id).await.unwrap().unwrap().state;
    assert_eq!(state.repeats, Some(3));
}

async fn deferred_enqueue_clears_snooze<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore,
>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let run = leased(store, "r1").await;
    store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Manual, 1.0)]))
        .await
        .unwrap();
    requeue_abandoned(
        store,
        &run,
        ItemState {
            parked: Some(Parked {
                reason: "x".into(),
                since: at(5),
            }),
            ..ItemState::default()
        },
    )
    .await;
    let next = leased(store, "r2").await;
    assert_eq!(next.item.id, run.item.id);
    assert_eq!(next.item.bucket, Bucket::Manual);
}

/// Another runner, which knows nothing of parking, has handed the item out: the run goes on, and its result counts.
async fn run_of_another_runner_is_adopted_though_its_item_is_parked<
    S: QueueStore + RunRecorder + Catalog + ActiveRunStore + RunStore + Parking,
>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let run = leased(store, "r1").await;
    let state = ItemState {
        attempts: Attempts::from([("vanished".into(), 3)]),
        parked: Some(Parked {
            reason: "again and again".into(),
            since: at(5),
        }),
        ..ItemState::default()
    };
    requeue_abandoned(store, &run, state.clone()).await;
    let foreign = ActiveRun {
        id: RunId::new("r2"),
        token: "theirs".into(),
        ..run
    };
    assert!(store.adopt(foreign.clone()).await.unwrap());
    assert_eq!(store.parked(None, 9).await.unwrap(), vec![]);
    // Abandoned as well, it goes on counting where the item was.
    let entry = store.entry(foreign.item.id).await.unwrap().unwrap();
    assert_eq!(entry.state.attempts, state.attempts);
    store
        .record(new_run(&foreign, full_run(&foreign)))
        .await
        .unwrap();
    assert_eq!(store.entry(foreign.item.id).await.unwrap(), None);
    assert_eq!(QueueStore::list(store, 9).await.unwrap(), vec![]);
}
