//! `Outbox`.

use super::contract;
use crate::support::values::*;
use janitor_runner::{
    domain::{publish::PublishStatus, queue::Bucket, run::Run},
    ports::{
        ActiveRunStore, Catalog, Event, Outbox, QueueStore, RunRecorder, RunStore,
        run_recorder::NewRun,
    },
};

contract!(
    pending_entries_are_ordered_and_complete,
    published_outbox_entries_are_deleted,
    recording_twice_adds_one_outbox_entry
);

async fn recorded_run<S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore>(
    store: &S,
    id: &str,
) -> NewRun {
    store
        .upload_codebases(vec![bare_codebase("aa")])
        .await
        .unwrap();
    store
        .enqueue(batch(vec![enqueue_request("aa", Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let active = store.claim(claim(id)).await.unwrap().unwrap().run;
    let new = new_run(&active, full_run(&active));
    store.record(new.clone()).await.unwrap();
    new
}

async fn pending_entries_are_ordered_and_complete<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore + Outbox,
>(
    store: &S,
) {
    let (first, second) = (
        recorded_run(store, "r1").await.run,
        recorded_run(store, "r2").await.run,
    );
    store
        .set_publish_status(&first.id, PublishStatus::Approved)
        .await
        .unwrap();
    store
        .set_publish_status(&first.id, PublishStatus::Ignored)
        .await
        .unwrap();
    let events: Vec<Event> = store
        .pending(9)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.event)
        .collect();
    let decided = |publish_status| {
        Event::PublishStatus(Box::new(Run {
            publish_status,
            ..first.clone()
        }))
    };
    // The publish status of a result may be the one of the moment of publishing.
    let Event::Result(result) = &events[0] else {
        panic!("{:?}", events[0])
    };
    assert_eq!(
        Run {
            publish_status: PublishStatus::Unknown,
            ..*result.clone()
        },
        first
    );
    assert_eq!(
        events[1..],
        [
            Event::Result(Box::new(second)),
            decided(PublishStatus::Approved),
            decided(PublishStatus::Ignored)
        ]
    );
    assert_eq!(store.pending(1).await.unwrap().len(), 1);
}

async fn published_outbox_entries_are_deleted<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore + Outbox,
>(
    store: &S,
) {
    recorded_run(store, "r1").await;
    recorded_run(store, "r2").await;
    let entries = store.pending(9).await.unwrap();
    store
        .mark_published(&[entries[0].id, 99_999])
        .await
        .unwrap();
    assert_eq!(store.pending(9).await.unwrap(), entries[1..]);
}

async fn recording_twice_adds_one_outbox_entry<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore + Outbox,
>(
    store: &S,
) {
    let new = recorded_run(store, "r1").await;
    store.record(new).await.unwrap();
    assert_eq!(store.pending(9).await.unwrap().len(), 1);
}
