//! `RunStore`.

use super::{contract, steps::*};
use crate::support::{start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    domain::{
        name::RunId,
        publish::PublishStatus,
        run::{ResultCode, Run, Target},
    },
    ports::{
        ActiveRunStore, Catalog, Credentials, QueueStore, RunRecorder, RunStore,
        run_recorder::{NewRun, Recorded},
    },
};

contract!(
    run_round_trips_every_field,
    publish_status_is_updated,
    run_is_found_by_revision,
    last_build_version_is_the_highest,
    finished_runs_are_counted_by_code_since_a_time,
    latest_returns_newest_runs_first,
    list_of_large_runs_ends_early,
    runs_are_found_in_the_order_of_their_ids,
);

async fn run_round_trips_every_field<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore + Credentials,
>(
    store: &S,
) {
    store.add("w1", "secret", None).await.unwrap();
    let active = active(store, "aa", "r1").await;
    let run = Run {
        worker: Some("w1".into()),
        ..full_run(&active)
    };
    assert_eq!(
        store.record(new_run(&active, run.clone())).await.unwrap(),
        Recorded::Stored
    );
    assert_eq!(store.run(&run.id).await.unwrap().unwrap(), run);
    assert_eq!(store.run(&RunId::new("nosuch")).await.unwrap(), None);
    assert_eq!(
        Credentials::list(store).await.unwrap()[0].last_seen,
        Some(start())
    );
    store.health_check().await.unwrap();
}

async fn publish_status_is_updated<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore,
>(
    store: &S,
) {
    let active = active(store, "aa", "r1").await;
    store
        .record(new_run(&active, full_run(&active)))
        .await
        .unwrap();
    let changed = store
        .set_publish_status(&active.id, PublishStatus::NeedsManualReview)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(changed.publish_status, PublishStatus::NeedsManualReview);
    assert_eq!(store.run(&active.id).await.unwrap().unwrap(), changed);
    assert_eq!(
        store
            .set_publish_status(&RunId::new("nosuch"), PublishStatus::Approved)
            .await
            .unwrap(),
        None
    );
}

async fn run_is_found_by_revision<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore,
>(
    store: &S,
) {
    for (id, code, revision) in [
        ("r1", "success", "x"),
        ("r2", "failed", "x"),
        ("r3", "success", "y"),
    ] {
        let active = active(store, "aa", id).await;
        let run = Run {
            code: ResultCode::new(code),
            revision: Some(revision.into()),
            ..full_run(&active)
        };
        store.record(new_run(&active, run)).await.unwrap();
    }
    let found = |revision: &'static str| async move {
        store
            .run_of_revision(&pair("aa", "gen"), revision)
            .await
            .unwrap()
            .map(|run| run.id.to_string())
    };
    assert_eq!(found("x").await.unwrap(), "r1");
    assert_eq!(found("y").await.unwrap(), "r3");
    assert_eq!(found("z").await, None);
    assert_eq!(
        store
            .run_of_revision(&pair("aa", "other"), "x")
            .await
            .unwrap(),
        None
    );
}

pub async fn last_build_version_is_the_highest<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore,
>(
    store: &S,
) {
    assert_eq!(
        store
            .last_build_version(&codebase_name("aa"), "sid")
            .await
            .unwrap(),
        None
    );
    for (id, version) in [("r1", "1.0-9"), ("r2", "1.0-10"), ("r3", "1.0~rc1")] {
        let active = active(store, "aa", id).await;
        let mut run = full_run(&active);
        if let Some(Target::Debian(package)) = &mut run.target {
            package.version = version.into();
        }
        store.record(new_run(&active, run)).await.unwrap();
    }
    assert_eq!(
        store
            .last_build_version(&codebase_name("aa"), "sid")
            .await
            .unwrap()
            .unwrap(),
        "1.0-10"
    );
    assert_eq!(
        store
            .last_build_version(&codebase_name("aa"), "other")
            .await
            .unwrap(),
        None
    );
}

async fn finished_runs_are_counted_by_code_since_a_time<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore,
>(
    store: &S,
) {
    for (id, code, minutes) in [
        ("r1", "success", 0),
        ("r2", "failed", 50),
        ("r3", "failed", 51),
    ] {
        let active = active(store, "aa", id).await;
        let now = start() + TimeDelta::minutes(minutes);
        let run = Run {
            code: ResultCode::new(code),
            ..full_run(&active)
        };
        store
            .record(NewRun {
                now,
                ..new_run(&active, run)
            })
            .await
            .unwrap();
    }
    let counts = store
        .finished_since(start() + TimeDelta::minutes(40))
        .await
        .unwrap();
    assert_eq!(
        counts.into_iter().collect::<Vec<_>>(),
        [(ResultCode::new("failed"), 2)]
    );
    assert_eq!(
        store
            .finished_since(start())
            .await
            .unwrap()
            .values()
            .sum::<u64>(),
        3
    );
}

async fn latest_returns_newest_runs_first<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore,
>(
    store: &S,
) {
    for (number, id) in ["r1", "r2", "r3"].into_iter().enumerate() {
        let active = active(store, "aa", id).await;
        let now = start() + TimeDelta::seconds(i64::try_from(number / 2).unwrap());
        store
            .record(NewRun {
                now,
                ..new_run(&active, full_run(&active))
            })
            .await
            .unwrap();
    }
    let ids: Vec<_> = store
        .latest(2)
        .await
        .unwrap()
        .into_iter()
        .map(|run| run.id.to_string())
        .collect();
    assert_eq!(ids, ["r3", "r2"]);
}

async fn list_of_large_runs_ends_early<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore,
>(
    store: &S,
) {
    let text = "x".repeat(1 << 20);
    for number in 0..30 {
        let active = active(store, "aa", &format!("r{number}")).await;
        let mut run = full_run(&active);
        run.failure_details = Some(serde_json::json!([text]));
        store.record(new_run(&active, run)).await.unwrap();
    }
    let listed = store.latest(1000).await.unwrap().len();
    assert!((16..30).contains(&listed), "{listed}");
    let ids: Vec<RunId> = (0..30).map(|n| RunId::new(format!("r{n}"))).collect();
    let found = store.runs_by_id(&ids).await.unwrap();
    assert!((16..30).contains(&found.len()), "{}", found.len());
    assert!(found.iter().zip(&ids).all(|(run, id)| run.id == *id));
}

async fn runs_are_found_in_the_order_of_their_ids<
    S: QueueStore + ActiveRunStore + RunRecorder + Catalog + RunStore,
>(
    store: &S,
) {
    for id in ["r1", "r2", "r3"] {
        let active = active(store, "aa", id).await;
        store
            .record(new_run(&active, full_run(&active)))
            .await
            .unwrap();
    }
    let ids = ["r3", "nosuch", "r1"].map(RunId::new);
    let found = store.runs_by_id(&ids).await.unwrap();
    let found: Vec<String> = found.iter().map(|run| run.id.to_string()).collect();
    assert_eq!(found, ["r3", "r1"]);
    assert_eq!(store.runs_by_id(&[]).await.unwrap(), []);
}
