//! `ScheduleStore`.

use super::contract;
use crate::support::{start, values::*};
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
        queue_store::EnqueueBatch,
    },
};

contract!(
    missing_facts_are_reported,
    facts_include_candidate_and_values,
    history_excludes_transient_runs,
    mean_durations_cover_pair_codebase_and_campaign,
    enqueue_settles_follow_ups_atomically,
    dropped_follow_ups_are_removed,
    last_effective_runs_skip_transient_runs,
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
