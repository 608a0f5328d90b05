//! Query plans that were cached while a table was empty must be fast when it is full: connections keep their plans (ADR 8),
//! and which of several indexes they use must not depend on what the table once held.

use crate::support::{servers, start, values::*};
use chrono::TimeDelta;
use janitor_runner::{
    adapters::postgres::Postgres,
    domain::queue::{Bucket, QueueKey},
    ports::{
        ActiveRunStore, Catalog, QueueStore, RunRecorder, RunStore, ScheduleStore,
        active_runs::ClaimRequest, queue_store::ClaimFilter,
    },
};
use std::time::{Duration, Instant};

const CODEBASES: usize = 3000;
const INITIAL_RUNS: usize = 500;
const LATER_RUNS: usize = 12_000;

/// Inserts runs of a campaign; `codebase` is an expression of their number. All have the same start time, which makes the index
/// on campaign and time small, and so the planner's first choice among those that seem equal.
fn runs(from: usize, to: usize, codebase: &str) -> String {
    format!(
        "INSERT INTO change_set (id, campaign) SELECT 'old-' || i, 'gen' FROM generate_series({from}, {to}) AS i;
         INSERT INTO run (id, command, start_time, finish_time, result_code, suite, logfilenames, change_set, codebase, revision)
         SELECT 'old-' || i, 'true', '2025-01-01', '2025-01-02', 'success', 'gen', '{{}}', 'old-' || i, {codebase}, 'r' FROM generate_series({from}, {to}) AS i"
    )
}

async fn quick<T>(what: &str, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let done = work.await;
    assert!(
        began.elapsed() < Duration::from_millis(1500),
        "{what} took {:?}",
        began.elapsed()
    );
    done
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plans_cached_on_empty_tables_stay_fast() {
    let url = servers::database().await;
    servers::execute(&url, "VACUUM ANALYZE").await;
    let store = servers::open_postgres(&url).await;
    let names: Vec<String> = (0..CODEBASES)
        .map(|number| format!("cb-{number}"))
        .collect();
    let keys: Vec<QueueKey> = names.iter().map(|name| key(name, "gen")).collect();
    store
        .upload_codebases(
            names
                .iter()
                .map(|name| bare_codebase(name))
                .chain([bare_codebase("busy")])
                .collect(),
        )
        .await
        .unwrap();
    // The statistics say that the table is empty. With a few rows in it, a useless index looks as good as the right one.
    servers::execute(&url, &runs(1, INITIAL_RUNS, "'cb-' || i")).await;
    cache_plans(&store, &keys).await;
    servers::execute(
        &url,
        &runs(INITIAL_RUNS + 1, INITIAL_RUNS + LATER_RUNS, "'busy'"),
    )
    .await;
    let requests = names
        .iter()
        .map(|name| enqueue_request(name, Bucket::Default, 1.0))
        .collect();
    quick("enqueuing", store.enqueue(batch(requests)))
        .await
        .unwrap();
    quick("gathering facts", store.facts(&keys)).await.unwrap();
    for number in 0..40 {
        run_cycle_on_one_codebase(&store, number).await;
    }
    // Rows that are in no statistics yet.
    let more = "INSERT INTO codebase (name) SELECT 'more-' || i FROM generate_series(1, 30000) AS i;
        INSERT INTO queue (codebase, suite, command, priority) SELECT 'more-' || i, 'gen', 'true', i FROM generate_series(1, 30000) AS i";
    servers::execute(&url, more).await;
    run_cycles_on_the_whole_queue(&store).await;
    assert_eq!(ActiveRunStore::list(&store).await.unwrap(), vec![]);
}

fn claim_of(run: &str, codebase: &str) -> ClaimRequest {
    ClaimRequest {
        filter: ClaimFilter {
            codebase: Some(codebase_name(codebase)),
            ..ClaimFilter::default()
        },
        ..claim(run)
    }
}

/// Runs each statement on each connection of the pool, at the same time.
async fn cache_plans(store: &Postgres, keys: &[QueueKey]) {
    let early: Vec<_> = (0..6)
        .map(|number| {
            let (store, some) = (store.clone(), keys[..3].to_vec());
            tokio::spawn(async move {
                store.facts(&some).await.unwrap();
                store.run_of_revision(&some[0].pair(), "r").await.unwrap();
                store.position(&some[0].pair()).await.unwrap();
                let request = claim_of(&format!("early-{number}"), "cb-0");
                store.claim(request).await.unwrap();
            })
        })
        .collect();
    for early in early {
        early.await.unwrap();
    }
}

async fn run_cycle_on_one_codebase(store: &Postgres, number: usize) {
    let name = format!("cb-{}", CODEBASES - 1 - number);
    let run = quick(
        "claiming by codebase",
        store.claim(claim_of(&format!("r{number}"), &name)),
    )
    .await
    .unwrap()
    .unwrap()
    .run;
    quick("storing a run", store.record(new_run(&run, full_run(&run))))
        .await
        .unwrap();
    quick(
        "looking up a revision",
        store.run_of_revision(&pair(&name, "gen"), "r2"),
    )
    .await
    .unwrap()
    .unwrap();
    quick(
        "looking up a position",
        store.position(&pair(&format!("cb-{number}"), "gen")),
    )
    .await
    .unwrap()
    .unwrap();
}

async fn run_cycles_on_the_whole_queue(store: &Postgres) {
    let began = Instant::now();
    for number in 0..40 {
        let run = store
            .claim(ClaimRequest {
                now: start() + TimeDelta::seconds(1),
                ..claim(&format!("s{number}"))
            })
            .await
            .unwrap()
            .unwrap()
            .run;
        store.record(new_run(&run, full_run(&run))).await.unwrap();
    }
    assert!(
        began.elapsed() < Duration::from_millis(800),
        "40 cycles took {:?}",
        began.elapsed()
    );
}
