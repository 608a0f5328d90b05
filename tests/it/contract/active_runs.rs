//! Leases and cancelling (`ActiveRunStore`), and what a result store does with vanished workers and late results.

use super::contract;
use crate::support::{start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    domain::{
        active_run::{ActiveRun, Claimant},
        name::RunId,
        queue::{Bucket, EnqueueRequest},
        retry::{Attempts, Disposition, ItemState, Parked},
        run::{ResultBranch, ResultCode, Run},
        time::Time,
    },
    ports::{
        ActiveRunStore, ActiveRunStoreError, Catalog, Credentials, Event, Outbox, Parking,
        QueueStore, RunRecorder, RunStore, RunStoreError, ScheduleStore,
        active_runs::{ActiveRunUpdate, ClaimRequest, Renewal},
        run_recorder::{LateOutcome, LateRun, NewRun, Recorded},
    },
};

contract!(
    a_lease_lasts_from_each_sign_of_life,
    a_sign_of_life_is_one_of_the_worker,
    claims_without_a_lease_stay_without,
    suspicion_is_kept_until_a_sign_of_life,
    a_cancelled_claim_says_why,
    an_item_goes_back_to_its_own_place,
    a_parked_item_waits_for_its_release,
    a_snoozed_item_waits_for_its_time,
    an_earlier_bucket_wakes_an_item,
    other_work_and_wishes_by_hand_wake_an_item,
    a_wish_wakes_an_item_that_goes_back,
    a_worker_seen_meanwhile_keeps_its_run,
    a_late_result_takes_the_place_of_the_run_given_up,
    a_late_result_of_an_item_run_again_is_stored_beside,
    a_late_result_of_an_item_held_again_is_stored_beside,
    only_runs_given_up_have_late_results,
    failures_of_workers_are_counted_in_a_row,
);

fn lease() -> TimeDelta {
    TimeDelta::seconds(120)
}

fn at(seconds: i64) -> Time {
    start() + TimeDelta::seconds(seconds)
}

async fn queued<S: QueueStore + Catalog>(store: &S, names: &[&str]) {
    store
        .upload_codebases(names.iter().map(|name| bare_codebase(name)).collect())
        .await
        .unwrap();
    store
        .enqueue(batch(
            names
                .iter()
                .map(|name| wish(name, Bucket::Default, 1.0))
                .collect(),
        ))
        .await
        .unwrap();
}

async fn leased<S: QueueStore + ActiveRunStore>(store: &S, run: &str) -> ActiveRun {
    store
        .claim(ClaimRequest {
            lease: Some(lease()),
            ..claim(run)
        })
        .await
        .unwrap()
        .unwrap()
        .run
}

fn given_up(active: &ActiveRun) -> Run {
    Run {
        code: ResultCode::new("worker-timeout"),
        transient: Some(true),
        given_up: true,
        target: None,
        revision: None,
        branches: None,
        ..full_run(active)
    }
}

/// Its worker vanished: the item goes back in that state.
async fn vanish<S: RunStore + RunRecorder>(store: &S, active: &ActiveRun, state: ItemState) {
    let new = NewRun {
        disposition: Disposition::Requeue(state),
        ..ended(active, given_up(active))
    };
    assert_eq!(store.record(new).await.unwrap(), Recorded::Stored);
}

async fn a_lease_lasts_from_each_sign_of_life<S: QueueStore + Catalog + ActiveRunStore>(store: &S) {
    queued(store, &["aa"]).await;
    let run = leased(store, "r1").await;
    assert_eq!(run.lease_until, Some(at(120)));
    assert_eq!(store.get(&run.id).await.unwrap().unwrap(), run);
    let renewed = store
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
    assert_eq!(
        (renewed.keepalive, renewed.lease_until),
        (at(50), Some(at(170)))
    );
    let older = store
        .renew(
            &run.id,
            &run.token,
            Renewal {
                now: at(10),
                lease: lease(),
            },
        )
        .await
        .unwrap();
    assert_eq!(older, renewed);
    assert_eq!(store.get(&run.id).await.unwrap().unwrap(), renewed);
}

async fn a_sign_of_life_is_one_of_the_worker<
    S: QueueStore + Catalog + ActiveRunStore + Credentials,
>(
    store: &S,
) {
    store.add("w1", "secret", None).await.unwrap();
    queued(store, &["aa"]).await;
    let claimant = Claimant {
        worker: Some("w1".into()),
        ..Claimant::default()
    };
    let run = store
        .claim(ClaimRequest {
            claimant,
            ..claim("r1")
        })
        .await
        .unwrap()
        .unwrap()
        .run;
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
    assert_eq!(
        store.account("w1").await.unwrap().unwrap().last_seen,
        Some(at(50))
    );
}

async fn claims_without_a_lease_stay_without<S: QueueStore + Catalog + ActiveRunStore>(store: &S) {
    queued(store, &["aa"]).await;
    let run = store.claim(claim("r1")).await.unwrap().unwrap().run;
    let renewed = store
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
    assert_eq!((renewed.lease_until, renewed.keepalive), (None, at(50)));
}

async fn suspicion_is_kept_until_a_sign_of_life<S: QueueStore + Catalog + ActiveRunStore>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let run = leased(store, "r1").await;
    assert!(matches!(
        store
            .update(&run.id, "wrong", ActiveRunUpdate::Pinged { failures: 1 })
            .await,
        Err(ActiveRunStoreError::ClaimLost(_))
    ));
    store
        .update(&run.id, &run.token, ActiveRunUpdate::Pinged { failures: 2 })
        .await
        .unwrap();
    assert_eq!(store.get(&run.id).await.unwrap().unwrap().failures, 2);
    assert_eq!(
        store
            .renew(
                &run.id,
                &run.token,
                Renewal {
                    now: at(1),
                    lease: lease()
                }
            )
            .await
            .unwrap()
            .failures,
        0
    );
}

async fn a_cancelled_claim_says_why<S: QueueStore + Catalog + ActiveRunStore>(store: &S) {
    queued(store, &["aa"]).await;
    let run = leased(store, "r1").await;
    assert_eq!(
        store.cancel(&RunId::new("nosuch"), "x").await.unwrap(),
        None
    );
    let cancelled = store.cancel(&run.id, "enough").await.unwrap().unwrap();
    assert_eq!(
        cancelled,
        ActiveRun {
            cancel: Some("enough".into()),
            ..run.clone()
        }
    );
    assert_eq!(
        store
            .cancel(&run.id, "more")
            .await
            .unwrap()
            .unwrap()
            .cancel
            .as_deref(),
        Some("enough")
    );
    let renewed = store
        .renew(
            &run.id,
            &run.token,
            Renewal {
                now: at(1),
                lease: lease(),
            },
        )
        .await
        .unwrap();
    assert_eq!(renewed.cancel.as_deref(), Some("enough"));
}

async fn an_item_goes_back_to_its_own_place<
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
    vanish(store, &run, state.clone()).await;
    assert_eq!(ActiveRunStore::list(store).await.unwrap(), vec![]);
    assert_eq!(store.follow_ups(9).await.unwrap(), vec![]);
    assert!(store.run(&run.id).await.unwrap().unwrap().given_up);
    let entry = store.entry(run.item.id).await.unwrap().unwrap();
    assert_eq!((entry.item, entry.state), (run.item.clone(), state));
    assert_eq!(leased(store, "r2").await.item, run.item);
    assert_eq!(store.entry(9999).await.unwrap(), None);
}

async fn a_parked_item_waits_for_its_release<
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
    vanish(store, &run, state.clone()).await;
    let parked = store.parked(None, 9).await.unwrap();
    assert_eq!(
        parked
            .iter()
            .map(|entry| (entry.item.id, entry.state.clone()))
            .collect::<Vec<_>>(),
        [(run.item.id, state)]
    );
    assert_eq!(store.parked(Some(run.item.id), 9).await.unwrap(), vec![]);
    // It keeps its place, and is skipped, by name too.
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

async fn a_snoozed_item_waits_for_its_time<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore + Parking,
>(
    store: &S,
) {
    queued(store, &["aa", "bb"]).await;
    let run = leased(store, "r1").await;
    vanish(
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

async fn an_earlier_bucket_wakes_an_item<
    S: QueueStore + RunRecorder + ActiveRunStore + Catalog + RunStore,
>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let run = leased(store, "r1").await;
    vanish(
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
        .enqueue(batch(vec![wish("aa", Bucket::Default, -50.0)]))
        .await
        .unwrap();
    assert_eq!(store.claim(claim("r2")).await.unwrap(), None);
    store
        .enqueue(batch(vec![wish("aa", Bucket::Manual, 1.0)]))
        .await
        .unwrap();
    assert_eq!(leased(store, "r3").await.item.id, run.item.id);
}

async fn other_work_and_wishes_by_hand_wake_an_item<
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
        ..wish("aa", Bucket::Default, 1.0)
    };
    let by_hand = wish("aa", Bucket::Manual, 1.0);
    for (number, wish) in [other, by_hand.clone(), by_hand].into_iter().enumerate() {
        let run = leased(store, &format!("r{number}")).await;
        vanish(store, &run, parked.clone()).await;
        assert_eq!(store.claim(claim("none")).await.unwrap(), None);
        store.enqueue(batch(vec![wish.clone()])).await.unwrap();
        let next = leased(store, &format!("again{number}")).await;
        assert_eq!(
            (next.item.id, &next.item.command),
            (run.item.id, &wish.command)
        );
        vanish(store, &next, ItemState::default()).await;
    }
}

async fn a_wish_wakes_an_item_that_goes_back<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore,
>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let run = leased(store, "r1").await;
    store
        .enqueue(batch(vec![wish("aa", Bucket::Manual, 1.0)]))
        .await
        .unwrap();
    vanish(
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
    assert_eq!(
        (next.item.id, next.item.bucket),
        (run.item.id, Bucket::Manual)
    );
}

async fn a_worker_seen_meanwhile_keeps_its_run<
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
        ..ended(&run, given_up(&run))
    };
    assert!(matches!(
        store.record(new.clone()).await,
        Err(RunStoreError::ClaimLost(_))
    ));
    assert!(
        store.get(&run.id).await.unwrap().is_some() && store.run(&run.id).await.unwrap().is_none()
    );
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

async fn a_late_result_takes_the_place_of_the_run_given_up<S>(store: &S)
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
    vanish(
        store,
        &active,
        ItemState {
            parked: Some(Parked {
                reason: "x".into(),
                since: at(5),
            }),
            ..ItemState::default()
        },
    )
    .await;
    let unknown = Run {
        worker: Some("ghost".into()),
        ..full_run(&active)
    };
    assert!(matches!(
        store
            .record_late(LateRun {
                run: unknown,
                now: at(9)
            })
            .await,
        Err(RunStoreError::UnknownWorker(_))
    ));
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
    // As if it had been recorded in time.
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
    let told: Vec<Event> = store
        .pending(9)
        .await
        .unwrap()
        .into_iter()
        .map(|news| news.event)
        .collect();
    assert!(
        matches!(told.last(), Some(Event::Result(told)) if **told == run) && told.len() == 2,
        "{told:?}"
    );
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
    let last: Vec<_> = store
        .last_effective_runs(&campaign_name("gen"))
        .await
        .unwrap()
        .into_iter()
        .map(|run| run.id.to_string())
        .collect();
    assert_eq!(last, ["r1"]);
}

async fn a_late_result_of_an_item_run_again_is_stored_beside<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore + ScheduleStore,
>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let first = leased(store, "r1").await;
    vanish(store, &first, ItemState::default()).await;
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
    store.record(ended(&second, newer.clone())).await.unwrap();
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
    assert_eq!(
        (
            store.run(&late.id).await.unwrap().unwrap(),
            store.run(&newer.id).await.unwrap().unwrap()
        ),
        (late, newer)
    );
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

async fn a_late_result_of_an_item_held_again_is_stored_beside<
    S: QueueStore + RunRecorder + Catalog + ActiveRunStore + RunStore + ScheduleStore,
>(
    store: &S,
) {
    queued(store, &["aa"]).await;
    let first = leased(store, "r1").await;
    vanish(store, &first, ItemState::default()).await;
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
        .record(ended(&second, full_run(&second)))
        .await
        .unwrap();
}

async fn only_runs_given_up_have_late_results<
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
    store.record(ended(&active, first.clone())).await.unwrap();
    assert_eq!(
        store.record_late(late).await.unwrap(),
        LateOutcome::NotGivenUp(Box::new(first))
    );
}

async fn failures_of_workers_are_counted_in_a_row<
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
                ..ended(&active, run)
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
