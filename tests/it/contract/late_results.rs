//! `RunRecorder::record_late`: results of runs that were abandoned before.

use super::{contract, steps::*};
use crate::support::values::*;
use janitor_runner::{
    domain::{
        retry::{ItemState, Parked},
        run::{ResultBranch, Run},
    },
    ports::{
        ActiveRunStore, Catalog, Credentials, Event, Outbox, Parking, QueueStore, RunRecorder,
        RunStore, RunStoreError, ScheduleStore,
        active_runs::ClaimRequest,
        run_recorder::{LateOutcome, LateRun},
    },
};

contract!(
    late_result_replaces_abandoned_run,
    late_result_of_unknown_worker_is_rejected,
    late_result_after_a_newer_run_leaves_that_run,
    late_result_leaves_a_newer_claim,
    late_result_of_a_run_in_time_is_not_stored,
);

async fn late_result_replaces_abandoned_run<S>(store: &S)
where
    S: QueueStore
        + RunRecorder
        + Catalog
        + ActiveRunStore
        + RunStore
        + ScheduleStore
        + Outbox
        + Parking
        + Credentials,
{
    store.add("w1", "secret", None).await.unwrap();
    queued(store, &["aa"]).await;
    let active = leased(store, "r1").await;
    let parked = Parked {
        reason: "x".into(),
        since: at(5),
    };
    let state = ItemState {
        parked: Some(parked),
        ..ItemState::default()
    };
    requeue_abandoned(store, &active, state).await;
    let run = Run {
        resume_from: None,
        worker: None,
        ..full_run(&active)
    };
    let late = LateRun {
        run: run.clone(),
        now: at(9),
    };
    assert_eq!(
        store.record_late(late.clone()).await.unwrap(),
        LateOutcome::Replaced
    );
    assert_eq!(store.run(&run.id).await.unwrap().unwrap(), run);
    assert_eq!(store.latest(9).await.unwrap(), std::slice::from_ref(&run));
    assert_is_as_if_in_time(store, &run).await;
    let again = LateRun {
        run: Run {
            description: Some("other".into()),
            ..run.clone()
        },
        now: at(10),
    };
    assert_eq!(
        store.record_late(again).await.unwrap(),
        LateOutcome::NotGivenUp(Box::new(run))
    );
    assert_eq!(last_effective(store).await, ["r1"]);
}

async fn last_effective<S: ScheduleStore>(store: &S) -> Vec<String> {
    store
        .last_effective_runs(&campaign_name("gen"))
        .await
        .unwrap()
        .into_iter()
        .map(|run| run.id.to_string())
        .collect()
}

/// The item is removed and followed up, and the result is published, as if the run had been recorded in time.
async fn assert_is_as_if_in_time<S>(store: &S, run: &Run)
where
    S: QueueStore + RunStore + ScheduleStore + Outbox + Parking,
{
    assert_eq!(QueueStore::list(store, 9).await.unwrap(), vec![]);
    assert_eq!(store.parked(None, 9).await.unwrap(), vec![]);
    let follow_ups: Vec<_> = store
        .follow_ups(9)
        .await
        .unwrap()
        .into_iter()
        .map(|follow_up| follow_up.run_id)
        .collect();
    assert_eq!(follow_ups, std::slice::from_ref(&run.id));
    assert_eq!(
        store
            .last_build_version(&codebase_name("aa"), "sid")
            .await
            .unwrap()
            .as_deref(),
        Some("1.0-1")
    );
    let published: Vec<Event> = store
        .pending(9)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.event)
        .collect();
    assert!(
        matches!(published.last(), Some(Event::Result(result)) if **result == *run),
        "{published:?}"
    );
    assert_eq!(published.len(), 2, "{published:?}");
}

async fn late_result_of_unknown_worker_is_rejected<
    S: QueueStore + RunRecorder + Catalog + ActiveRunStore + RunStore,
>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let active = leased(store, "r1").await;
    requeue_abandoned(store, &active, ItemState::default()).await;
    let run = Run {
        worker: Some("ghost".into()),
        ..full_run(&active)
    };
    assert!(matches!(
        store.record_late(LateRun { run, now: at(9) }).await,
        Err(RunStoreError::UnknownWorker(_))
    ));
    assert!(store.run(&active.id).await.unwrap().unwrap().given_up);
}

async fn late_result_after_a_newer_run_leaves_that_run<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore + ScheduleStore,
>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let first = leased(store, "r1").await;
    requeue_abandoned(store, &first, ItemState::default()).await;
    let second = store
        .claim(ClaimRequest {
            now: at(200),
            ..claim("r2")
        })
        .await
        .unwrap()
        .unwrap()
        .run;
    let newer = Run {
        start_time: at(200),
        finish_time: at(260),
        ..full_run(&second)
    };
    store.record(new_run(&second, newer.clone())).await.unwrap();
    let late = Run {
        branches: Some(vec![branch("other")]),
        resume_from: None,
        ..full_run(&first)
    };
    assert_eq!(
        store
            .record_late(LateRun {
                run: late.clone(),
                now: at(300)
            })
            .await
            .unwrap(),
        LateOutcome::ReplacedButRequeued
    );
    assert_eq!(store.run(&late.id).await.unwrap().unwrap(), late);
    assert_eq!(store.run(&newer.id).await.unwrap().unwrap(), newer);
    assert_eq!(store.follow_ups(9).await.unwrap().len(), 1);
    let last: Vec<_> = store
        .last_effective_runs(&campaign_name("gen"))
        .await
        .unwrap()
        .into_iter()
        .map(|run| run.id.to_string())
        .collect();
    assert_eq!(last, ["r2"]);
}

fn branch(role: &str) -> ResultBranch {
    ResultBranch {
        role: role.into(),
        name: Some("n".into()),
        base: None,
        revision: Some("r9".into()),
    }
}

async fn late_result_leaves_a_newer_claim<
    S: QueueStore + RunRecorder + Catalog + ActiveRunStore + RunStore + ScheduleStore,
>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let first = leased(store, "r1").await;
    requeue_abandoned(store, &first, ItemState::default()).await;
    let second = leased(store, "r2").await;
    let late = Run {
        resume_from: None,
        ..full_run(&first)
    };
    assert_eq!(
        store
            .record_late(LateRun {
                run: late.clone(),
                now: at(300)
            })
            .await
            .unwrap(),
        LateOutcome::ReplacedButRequeued
    );
    assert_eq!(store.run(&late.id).await.unwrap().unwrap(), late);
    assert_eq!(store.get(&second.id).await.unwrap().unwrap(), second);
    assert_eq!(store.follow_ups(9).await.unwrap(), vec![]);
    store
        .record(new_run(&second, full_run(&second)))
        .await
        .unwrap();
}

async fn late_result_of_a_run_in_time_is_not_stored<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore,
>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let active = leased(store, "r1").await;
    let late = LateRun {
        run: full_run(&active),
        now: at(9),
    };
    assert!(matches!(
        store.record_late(late.clone()).await,
        Err(RunStoreError::ClaimLost(_))
    ));
    let first = Run {
        description: Some("in time".into()),
        ..full_run(&active)
    };
    store.record(new_run(&active, first.clone())).await.unwrap();
    assert_eq!(
        store.record_late(late).await.unwrap(),
        LateOutcome::NotGivenUp(Box::new(first))
    );
}
