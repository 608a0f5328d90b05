//! Steps that cases of several contracts begin with.

use crate::support::{start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    domain::{
        active_run::ActiveRun,
        pause::{Pause, Scope},
        queue::Bucket,
        retry::{Disposition, ItemState},
        run::{ResultCode, Run},
        time::Time,
    },
    ports::{
        ActiveRunStore, Catalog, QueueStore, RunRecorder, RunStore,
        active_runs::ClaimRequest,
        run_recorder::{NewRun, Recorded},
    },
};

pub async fn codebases(store: &(impl Catalog + ?Sized), names: &[&str]) {
    store
        .upload_codebases(names.iter().map(|name| bare_codebase(name)).collect())
        .await
        .unwrap();
}

pub fn lease() -> TimeDelta {
    TimeDelta::seconds(120)
}

pub fn at(seconds: i64) -> Time {
    start() + TimeDelta::seconds(seconds)
}

pub async fn queued<S: QueueStore + Catalog>(store: &S, names: &[&str]) {
    store
        .upload_codebases(names.iter().map(|name| bare_codebase(name)).collect())
        .await
        .unwrap();
    store
        .enqueue(batch(
            names
                .iter()
                .map(|name| enqueue_request(name, Bucket::Default, 1.0))
                .collect(),
        ))
        .await
        .unwrap();
}

pub async fn leased<S: QueueStore + ActiveRunStore>(store: &S, run: &str) -> ActiveRun {
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

pub fn abandoned(active: &ActiveRun) -> Run {
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

/// Records that the worker of a run vanished; its item is requeued in that state.
pub async fn requeue_abandoned<S: RunStore + RunRecorder>(
    store: &S,
    active: &ActiveRun,
    state: ItemState,
) {
    let new = NewRun {
        disposition: Disposition::Requeue(state),
        ..new_run(active, abandoned(active))
    };
    assert_eq!(store.record(new).await.unwrap(), Recorded::Stored);
}

pub async fn active<S: QueueStore + ActiveRunStore + Catalog>(
    store: &S,
    codebase: &str,
    run: &str,
) -> ActiveRun {
    store
        .upload_codebases(vec![bare_codebase(codebase)])
        .await
        .unwrap();
    store
        .enqueue(batch(vec![enqueue_request(codebase, Bucket::Default, 1.0)]))
        .await
        .unwrap();
    let request = janitor_runner::ports::active_runs::ClaimRequest {
        filter: janitor_runner::ports::queue_store::ClaimFilter {
            codebase: Some(codebase_name(codebase)),
            ..Default::default()
        },
        ..claim(run)
    };
    store.claim(request).await.unwrap().unwrap().run
}

pub async fn queue_order(store: &(impl QueueStore + ?Sized)) -> Vec<String> {
    store
        .list(100)
        .await
        .unwrap()
        .into_iter()
        .map(|item| item.key.codebase.to_string())
        .collect()
}

pub fn pause(kind: &str, name: &str) -> Pause {
    Pause {
        scope: scope(kind, name),
        reason: "why".into(),
        since: start(),
        until: None,
    }
}

pub fn scope(kind: &str, name: &str) -> Scope {
    Scope::parse(kind, Some(name)).unwrap()
}
