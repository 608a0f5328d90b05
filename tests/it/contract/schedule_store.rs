//! `ScheduleStore`.

use super::contract;
use crate::support::{FakeClock, fixture::coordinator_config, start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    domain::{
        codebase::Codebase,
        queue::Bucket,
        run::{ResultCode, Run},
        schedule::{CodebaseValue, MeanDurations},
    },
    ports::{
        ActiveRunStore, Catalog, QueueStore, QueueStoreError, RunRecorder, RunStore, ScheduleStore,
        catalog::ScheduledCandidate, queue_store::EnqueueBatch,
    },
    services::schedule::{Options, Scheduler, Subject},
};
use std::sync::Arc;

contract!(
    missing_facts_are_reported,
    facts_include_candidate_and_values,
    history_excludes_transient_runs,
    mean_durations_cover_pair_codebase_and_campaign,
    enqueue_settles_follow_ups_atomically,
    dropped_follow_ups_are_removed,
    last_effective_runs_skip_transient_runs,
    follow_up_leaves_newer_items_alone,
    follow_up_takes_the_command_of_the_candidate_now,
    schedule_by_hand_finds_the_candidate_of_any_change_set,
);

/// Queues, claims and records one run.
async fn recorded_run<S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore>(
    store: &S,
    id: &str,
    codebase: &str,
    change: impl FnOnce(&mut Run),
) {
    store
        .enqueue(batch(vec![enqueue_request(codebase, Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let active = store.claim(claim(id)).await.unwrap().unwrap().run;
    let mut run = full_run(&active);
    change(&mut run);
    store.record(new_run(&active, run)).await.unwrap();
}

async fn missing_facts_are_reported<S: ScheduleStore>(store: &S) {
    let facts = store
        .facts(&[key("nowhere", "gen")])
        .await
        .unwrap()
        .pop()
        .unwrap();
    assert_eq!(facts.candidate, None);
    assert_eq!(facts.codebase_value, CodebaseValue::Unknown);
    assert_eq!(facts.highest_value, None);
    assert_eq!(facts.history, vec![]);
    assert_eq!(facts.means, MeanDurations::default());
    assert_eq!(store.facts(&[]).await.unwrap(), vec![]);
}

async fn facts_include_candidate_and_values<S: ScheduleStore + Catalog>(store: &S) {
    let valued = |name: &str, value| Codebase {
        value,
        ..bare_codebase(name)
    };
    store
        .upload_codebases(vec![
            valued("aa", Some(5)),
            valued("bb", Some(50)),
            valued("cc", None),
        ])
        .await
        .unwrap();
    store
        .upload_candidates(vec![new_candidate("aa")], start())
        .await
        .unwrap();
    let facts = store
        .facts(&[key("cc", "gen"), key("aa", "gen")])
        .await
        .unwrap();
    assert_eq!(facts[0].codebase_value, CodebaseValue::Unset);
    assert_eq!(facts[1].codebase_value, CodebaseValue::Of(5));
    assert_eq!(facts[0].highest_value, Some(50));
    assert_eq!(facts[0].candidate, None);
    assert_eq!(facts[1].candidate.as_ref().unwrap().value, Some(7));
    store
        .upload_codebases(vec![valued("bb", None), valued("aa", Some(-1))])
        .await
        .unwrap();
    assert_eq!(
        store.facts(&[key("cc", "gen")]).await.unwrap()[0].highest_value,
        Some(-1)
    );
}

async fn history_excludes_transient_runs<
    S: ScheduleStore + ActiveRunStore + RunRecorder + QueueStore + Catalog + RunStore,
>(
    store: &S,
) {
    store
        .upload_codebases(vec![bare_codebase("aa")])
        .await
        .unwrap();
    recorded_run(store, "r1", "aa", |run| {
        run.code = ResultCode::new("failed");
    })
    .await;
    recorded_run(store, "r2", "aa", |run| run.transient = Some(true)).await;
    recorded_run(store, "r3", "aa", |run| run.transient = None).await;
    let facts = store
        .facts(&[key("aa", "gen")])
        .await
        .unwrap()
        .pop()
        .unwrap();
    let mut codes: Vec<_> = facts
        .history
        .iter()
        .map(|run| run.code.to_string())
        .collect();
    codes.sort();
    assert_eq!(codes, ["failed", "success"]);
    let past = &facts.history[0];
    assert_eq!(past.instigated_context.as_deref(), Some("asked"));
    assert_eq!(past.context.as_deref(), Some("found"));
    assert_eq!(past.start_time, start() + TimeDelta::microseconds(1));
}

async fn mean_durations_cover_pair_codebase_and_campaign<
    S: ScheduleStore + ActiveRunStore + RunRecorder + QueueStore + Catalog + RunStore,
>(
    store: &S,
) {
    store
        .upload_codebases(vec![bare_codebase("aa"), bare_codebase("bb")])
        .await
        .unwrap();
    for (id, seconds) in [("r1", 10), ("r2", 30)] {
        recorded_run(store, id, "aa", |run| {
            run.finish_time = run.start_time + TimeDelta::seconds(seconds);
        })
        .await;
    }
    recorded_run(store, "r3", "aa", |run| {
        run.finish_time = run.start_time + TimeDelta::seconds(1000);
        run.transient = Some(true);
    })
    .await;
    let facts = store
        .facts(&[
            key("aa", "gen"),
            key("aa", "other"),
            key("bb", "gen"),
            key("bb", "other"),
        ])
        .await
        .unwrap();
    let estimates: Vec<f64> = facts.iter().map(|facts| facts.means.estimate()).collect();
    assert_eq!(estimates, [20.0, 20.0, 20.0, 15.0]);
    assert_eq!(facts[1].means.pair, None);
    assert_eq!(facts[1].means.codebase, Some(20.0));
    assert_eq!(facts[2].means.codebase, None);
    assert_eq!(facts[2].means.campaign, Some(20.0));
}

async fn enqueue_settles_follow_ups_atomically<
    S: ScheduleStore + ActiveRunStore + RunRecorder + QueueStore + Catalog + RunStore,
>(
    store: &S,
) {
    store
        .upload_codebases(vec![bare_codebase("aa")])
        .await
        .unwrap();
    recorded_run(store, "r1", "aa", |_| {}).await;
    recorded_run(store, "r2", "aa", |_| {}).await;
    store
        .upload_candidates(vec![new_candidate("aa")], start())
        .await
        .unwrap();
    let waiting = store.follow_ups(1).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!(waiting[0].run_id.as_str(), "r1");
    let refused = EnqueueBatch {
        items: vec![enqueue_request("nowhere", Bucket::Default, 1.0)],
        settles: vec![waiting[0].id],
        now: start(),
    };
    assert!(store.enqueue(refused).await.is_err());
    assert_eq!(store.follow_ups(9).await.unwrap().len(), 2);
    let settled = EnqueueBatch {
        items: vec![enqueue_request("aa", Bucket::Default, 1.0)],
        settles: vec![waiting[0].id],
        now: start(),
    };
    store.enqueue(settled.clone()).await.unwrap();
    assert!(matches!(
        store.enqueue(settled).await,
        Err(QueueStoreError::AlreadySettled)
    ));
    assert_eq!(store.follow_ups(9).await.unwrap()[0].run_id.as_str(), "r2");
}

async fn dropped_follow_ups_are_removed<
    S: ScheduleStore + ActiveRunStore + RunRecorder + QueueStore + Catalog + RunStore,
>(
    store: &S,
) {
    store
        .upload_codebases(vec![bare_codebase("aa")])
        .await
        .unwrap();
    recorded_run(store, "r1", "aa", |_| {}).await;
    let waiting = store.follow_ups(9).await.unwrap();
    store
        .drop_follow_ups(&[waiting[0].id, 12_345])
        .await
        .unwrap();
    assert_eq!(store.follow_ups(9).await.unwrap(), vec![]);
}

async fn last_effective_runs_skip_transient_runs<
    S: ScheduleStore + ActiveRunStore + RunRecorder + QueueStore + Catalog + RunStore,
>(
    store: &S,
) {
    store
        .upload_codebases(vec![bare_codebase("aa"), bare_codebase("bb")])
        .await
        .unwrap();
    recorded_run(store, "r1", "aa", |_| {}).await;
    recorded_run(store, "r2", "aa", |run| {
        run.start_time = start() + TimeDelta::seconds(30);
        run.code = ResultCode::new("worker-timeout");
        run.transient = Some(true);
    })
    .await;
    recorded_run(store, "r3", "bb", |run| {
        run.code = ResultCode::new("failed");
    })
    .await;
    let last = store
        .last_effective_runs(&campaign_name("gen"))
        .await
        .unwrap();
    let ids: Vec<_> = last.iter().map(|run| run.id.as_str()).collect();
    assert_eq!(ids, ["r1", "r3"]);
    assert_eq!(
        store
            .last_effective_runs(&campaign_name("other"))
            .await
            .unwrap(),
        vec![]
    );
}

/// A candidate with that command, and the request to run it.
fn candidate_with(command: &str) -> ScheduledCandidate {
    let mut scheduled = new_candidate("aa");
    scheduled.new.candidate.command = command.into();
    scheduled.enqueue.command = command.into();
    scheduled
}

/// Stores a follow-up whose facts were read while the candidate had the command `stale`.
async fn stale_follow_up<
    S: ScheduleStore + ActiveRunStore + RunRecorder + QueueStore + Catalog + RunStore,
>(
    store: &S,
) -> EnqueueBatch {
    store
        .upload_codebases(vec![bare_codebase("aa")])
        .await
        .unwrap();
    store
        .upload_candidates(vec![candidate_with("stale")], start())
        .await
        .unwrap();
    let active = store.claim(claim("r1")).await.unwrap().unwrap().run;
    store
        .record(new_run(&active, full_run(&active)))
        .await
        .unwrap();
    let follow_up = store.follow_ups(9).await.unwrap().remove(0);
    let mut request = enqueue_request("aa", Bucket::Default, 1.0);
    request.command = "stale".into();
    request.context = Some("found".into());
    request.requester = Some("after run schedule".into());
    EnqueueBatch {
        items: vec![request],
        settles: vec![follow_up.id],
        now: start(),
    }
}

async fn follow_up_leaves_newer_items_alone<
    S: ScheduleStore + ActiveRunStore + RunRecorder + QueueStore + Catalog + RunStore,
>(
    store: &S,
) {
    let follow_up = stale_follow_up(store).await;
    store
        .upload_candidates(vec![candidate_with("newer")], start())
        .await
        .unwrap();
    let before = QueueStore::list(store, 9).await.unwrap();
    assert_eq!(store.enqueue(follow_up).await.unwrap(), vec![]);
    assert_eq!(QueueStore::list(store, 9).await.unwrap(), before);
    assert_eq!(store.follow_ups(9).await.unwrap(), vec![]);
}

async fn follow_up_takes_the_command_of_the_candidate_now<
    S: ScheduleStore + ActiveRunStore + RunRecorder + QueueStore + Catalog + RunStore,
>(
    store: &S,
) {
    let follow_up = stale_follow_up(store).await;
    store
        .upload_candidates(vec![candidate_with("newer")], start())
        .await
        .unwrap();
    // The newer item is claimed: what follows its run is no matter of this follow-up.
    let active = store.claim(claim("r2")).await.unwrap().unwrap().run;
    let first = EnqueueBatch {
        settles: vec![],
        ..follow_up.clone()
    };
    assert_eq!(store.enqueue(follow_up.clone()).await.unwrap(), vec![]);
    store
        .record(new_run(&active, full_run(&active)))
        .await
        .unwrap();
    assert_eq!(QueueStore::list(store, 9).await.unwrap(), vec![]);
    // It is gone by now, but the facts of its follow-up are stale.
    let settles = vec![store.follow_ups(9).await.unwrap()[0].id];
    let late = EnqueueBatch { settles, ..first };
    assert_eq!(store.enqueue(late).await.unwrap().len(), 1);
    let queued = QueueStore::list(store, 9).await.unwrap();
    assert_eq!(queued[0].command, "newer");
    assert_eq!(queued[0].context.as_deref(), Some("found"));
    // Nothing follows when the candidate is gone.
    let active = store.claim(claim("r3")).await.unwrap().unwrap().run;
    let candidate = store.candidates(None, 99).await.unwrap()[0].id;
    store
        .record(new_run(&active, full_run(&active)))
        .await
        .unwrap();
    assert!(store.delete_candidate(candidate).await.unwrap());
    let settles = vec![store.follow_ups(9).await.unwrap()[0].id];
    let last = EnqueueBatch {
        settles,
        ..follow_up
    };
    assert_eq!(store.enqueue(last).await.unwrap(), vec![]);
    assert_eq!(QueueStore::list(store, 9).await.unwrap(), vec![]);
}

async fn schedule_by_hand_finds_the_candidate_of_any_change_set<
    S: ScheduleStore + Catalog + RunStore + QueueStore + Clone + 'static,
>(
    store: &S,
) {
    let shared = Arc::new(store.clone());
    let scheduler = Scheduler::new(
        shared.clone(),
        shared.clone(),
        shared.clone(),
        shared,
        FakeClock::new(),
        Arc::new(coordinator_config()),
    );
    store
        .upload_codebases(vec![bare_codebase("aa")])
        .await
        .unwrap();
    let upload = async |change_set: Option<&str>, command: &str| {
        let mut scheduled = candidate_with(command);
        scheduled.new.candidate.key.change_set = change_set.map(str::to_owned);
        scheduled.enqueue.key.change_set = change_set.map(str::to_owned);
        let stored = store.upload_candidates(vec![scheduled], start()).await;
        stored.unwrap();
    };
    let command = async |change_set: Option<&str>| {
        let subject = Subject::Pair {
            codebase: codebase_name("aa"),
            campaign: Some(campaign_name("gen")),
        };
        let options = Options {
            change_set: change_set.map(str::to_owned),
            bucket: Some(Bucket::Manual),
            ..Options::default()
        };
        let scheduled = scheduler.schedule(subject, options).await.unwrap();
        let queued = QueueStore::list(store, 9).await.unwrap();
        let item = queued.iter().find(|item| item.id == scheduled.queue_id);
        item.unwrap().command.clone()
    };
    // The campaign's own command, as long as there is no candidate.
    assert_eq!(command(None).await, "true");
    upload(Some("x"), "of x").await;
    upload(Some("y"), "of y").await;
    assert_eq!(command(None).await, "of x");
    assert_eq!(command(Some("y")).await, "of y");
    assert_eq!(command(Some("other")).await, "of x");
    upload(None, "of none").await;
    assert_eq!(command(None).await, "of none");
    assert_eq!(command(Some("other")).await, "of none");
    assert_eq!(command(Some("x")).await, "of x");
}
