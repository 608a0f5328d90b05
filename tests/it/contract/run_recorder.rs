//! `RunRecorder`: recording a run while its claim is held.

use super::{contract, steps::*};
use crate::support::values::*;
use janitor_runner::{
    domain::{
        queue::Bucket,
        run::{ResultCode, Run},
    },
    ports::{
        ActiveRunStore, Catalog, Credentials, QueueStore, RunRecorder, RunStore, RunStoreError,
        ScheduleStore,
        active_runs::Renewal,
        run_recorder::{NewRun, Recorded},
    },
};

contract!(
    record_is_rejected_if_worker_was_seen_meanwhile,
    consecutive_worker_failures_are_counted,
    failures_of_nodes_are_counted_apart,
    record_removes_item_and_claim,
    recording_twice_keeps_the_first_run,
    stale_token_records_nothing,
    unknown_worker_records_nothing,
    record_enqueues_the_deferred_request,
    concurrent_records_store_one_run,
);

async fn record_is_rejected_if_worker_was_seen_meanwhile<
    S: QueueStore + RunRecorder + Catalog + ActiveRunStore + RunStore,
>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let run = leased(store, "r1").await;
    store
        .renew(
            &run.id,
            &run.token,
            Renewal {
                now: at(50),
                lease: lease(),
            },
        )
        .await
        .unwrap();
    let new = NewRun {
        unless_seen_after: Some(run.keepalive),
        ..new_run(&run, abandoned(&run))
    };
    assert!(matches!(
        store.record(new.clone()).await,
        Err(RunStoreError::ClaimLost(_))
    ));
    assert!(store.get(&run.id).await.unwrap().is_some());
    assert!(store.run(&run.id).await.unwrap().is_none());
    assert_eq!(
        store
            .record(NewRun {
                unless_seen_after: Some(at(50)),
                ..new
            })
            .await
            .unwrap(),
        Recorded::Stored
    );
}

async fn consecutive_worker_failures_are_counted<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore + Credentials,
>(
    store: &S,
) {
    store.add("w1", "secret", None).await.unwrap();
    for (id, worker_at_fault, failures) in [
        ("r1", Some(true), 1),
        ("r2", Some(true), 2),
        ("r3", None, 2),
        ("r4", Some(false), 0),
        ("r5", Some(true), 1),
    ] {
        queued(store, &["aa"]).await;
        let active = leased(store, id).await;
        let run = Run {
            worker: Some("w1".into()),
            ..full_run(&active)
        };
        store
            .record(NewRun {
                worker_at_fault,
                ..new_run(&active, run)
            })
            .await
            .unwrap();
        assert_eq!(
            store.account("w1").await.unwrap().unwrap().failures,
            failures,
            "{id}"
        );
    }
    assert_eq!(Credentials::list(store).await.unwrap()[0].failures, 1);
}

async fn failures_of_nodes_are_counted_apart<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore + Credentials,
>(
    store: &S,
) {
    store.add("fleet", "secret", None).await.unwrap();
    store.add("fleet2", "secret", None).await.unwrap();
    let counts = async || {
        let mut counts = vec![];
        for name in ["fleet", "fleet/n1", "fleet/n2", "fleet2/n1"] {
            counts.push(store.failures(name).await.unwrap());
        }
        counts
    };
    for (id, counted_name, worker_at_fault, expected) in [
        ("r1", "fleet/n1", true, [0, 1, 0, 0]),
        ("r2", "fleet/n1", true, [0, 2, 0, 0]),
        ("r3", "fleet/n2", true, [0, 2, 1, 0]),
        ("r4", "fleet/n2", false, [0, 2, 0, 0]),
        ("r5", "fleet", true, [1, 2, 0, 0]),
        ("r6", "fleet2/n1", true, [1, 2, 0, 1]),
    ] {
        queued(store, &["aa"]).await;
        let active = leased(store, id).await;
        let run = Run {
            worker: counted_name.split('/').next().map(Into::into),
            ..full_run(&active)
        };
        store
            .record(NewRun {
                worker_at_fault: Some(worker_at_fault),
                counted_name: Some(counted_name.into()),
                ..new_run(&active, run)
            })
            .await
            .unwrap();
        assert_eq!(counts().await, expected, "{id}");
    }
    assert_eq!(
        store.account("fleet").await.unwrap().unwrap().failures,
        1,
        "an account shows its own count"
    );
    assert!(Credentials::remove(store, "fleet").await.unwrap());
    assert_eq!(counts().await, [0, 0, 0, 1]);
}

async fn record_removes_item_and_claim<
    S: QueueStore + RunRecorder + Catalog + RunStore + ActiveRunStore + ScheduleStore,
>(
    store: &S,
) {
    let active = active(store, "aa", "r1").await;
    store
        .record(new_run(&active, full_run(&active)))
        .await
        .unwrap();
    assert_eq!(store.get(&active.id).await.unwrap(), None);
    assert_eq!(QueueStore::list(store, 9).await.unwrap(), vec![]);
    let follow_ups = store.follow_ups(9).await.unwrap();
    assert_eq!(follow_ups.len(), 1);
    assert_eq!(follow_ups[0].key, key("aa", "gen"));
    assert_eq!(follow_ups[0].run_id, active.id);
    assert_eq!(follow_ups[0].context.as_deref(), Some("found"));
}

async fn recording_twice_keeps_the_first_run<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore + ScheduleStore,
>(
    store: &S,
) {
    let active = active(store, "aa", "r1").await;
    let first = full_run(&active);
    store.record(new_run(&active, first.clone())).await.unwrap();
    let second = Run {
        code: ResultCode::new("failed"),
        ..first.clone()
    };
    assert_eq!(
        store.record(new_run(&active, second)).await.unwrap(),
        Recorded::AlreadyStored(Box::new(first.clone()))
    );
    assert_eq!(store.run(&first.id).await.unwrap().unwrap(), first);
    assert_eq!(store.follow_ups(9).await.unwrap().len(), 1);
}

async fn stale_token_records_nothing<
    S: QueueStore + RunRecorder + Catalog + RunStore + ActiveRunStore,
>(
    store: &S,
) {
    let active = active(store, "aa", "r1").await;
    let stale = NewRun {
        token: "wrong".into(),
        ..new_run(&active, full_run(&active))
    };
    assert!(matches!(
        store.record(stale).await,
        Err(RunStoreError::ClaimLost(_))
    ));
    assert_eq!(store.run(&active.id).await.unwrap(), None);
    assert!(store.get(&active.id).await.unwrap().is_some());
}

async fn unknown_worker_records_nothing<
    S: QueueStore + RunRecorder + Catalog + RunStore + ActiveRunStore,
>(
    store: &S,
) {
    let active = active(store, "aa", "r1").await;
    let run = Run {
        worker: Some("ghost".into()),
        ..full_run(&active)
    };
    assert!(
        matches!(store.record(new_run(&active, run)).await, Err(RunStoreError::UnknownWorker(name)) if name == "ghost")
    );
    assert_eq!(store.run(&active.id).await.unwrap(), None);
    assert!(store.get(&active.id).await.unwrap().is_some());
}

async fn record_enqueues_the_deferred_request<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore,
>(
    store: &S,
) {
    let active = active(store, "aa", "r1").await;
    let mut again = enqueue_request("aa", Bucket::Hook, 4.0);
    again.command = "newer".into();
    store.enqueue(batch(vec![again])).await.unwrap();
    store
        .record(new_run(&active, full_run(&active)))
        .await
        .unwrap();
    let items = QueueStore::list(store, 9).await.unwrap();
    assert_eq!(items.len(), 1);
    assert_eq!(items[0].command.as_str(), "newer");
    assert_eq!(items[0].bucket, Bucket::Hook);
    assert_ne!(items[0].id, active.item.id);
}

async fn concurrent_records_store_one_run<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore + Clone + 'static,
>(
    store: &S,
) {
    let active = active(store, "aa", "r1").await;
    let records = (0..8).map(|number| {
        let (store, active) = (store.clone(), active.clone());
        tokio::spawn(async move {
            let run = Run {
                description: Some(number.to_string()),
                ..full_run(&active)
            };
            store.record(new_run(&active, run)).await.unwrap()
        })
    });
    let mut stored = 0;
    for record in records.collect::<Vec<_>>() {
        stored += usize::from(record.await.unwrap() == Recorded::Stored);
    }
    assert_eq!(stored, 1);
    assert_eq!(store.latest(9).await.unwrap().len(), 1);
}
