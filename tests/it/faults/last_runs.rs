//! The rule for `last_run` as a table, on a database of our own and on one with the Janitor's own triggers and functions.

use super::existing::janitors_schema;
use crate::{
    contract::steps,
    support::{servers, start, values::*},
};
use chrono::TimeDelta;
use janitor_runner::{
    adapters::postgres::{Postgres, schema},
    domain::{
        name::RunId,
        queue::{Bucket, EnqueueRequest},
        run::{ResultBranch, ResultCode, Run},
    },
    ports::{ActiveRunStore, Catalog, QueueStore, RunRecorder, catalog::ScheduledCandidate},
};
use sqlx::{Connection, PgConnection};

/// A run: minute, code, whether it is transient, the number of the run that it resumed from, and the number of its branches.
type Row = (i64, &'static str, Option<bool>, Option<usize>, usize);
/// The numbers of the last, the last effective and the last unabsorbed run.
type Expected = (usize, Option<usize>, Option<usize>);

const NOTHING_NEW: &str = "nothing-new-to-do";

/// What is said of the runs of a pair, in the order in which they are stored; numbers begin with 1.
const TABLE: &[(&str, &[Row], Expected)] = &[
    (
        "success",
        &[(1, "success", None, None, 1)],
        (1, Some(1), Some(1)),
    ),
    (
        "success of no branch",
        &[(1, "success", None, None, 0)],
        (1, Some(1), None),
    ),
    (
        "nothing to do",
        &[(1, "nothing-to-do", None, None, 0)],
        (1, Some(1), None),
    ),
    (
        "failure",
        &[(1, "build-failed", None, None, 0)],
        (1, Some(1), Some(1)),
    ),
    (
        "permanent failure",
        &[(1, "build-failed", Some(false), None, 0)],
        (1, Some(1), Some(1)),
    ),
    (
        "failure following a success",
        &[
            (1, "success", None, None, 1),
            (2, "build-failed", Some(false), None, 0),
        ],
        (2, Some(2), Some(2)),
    ),
    (
        "nothing to do after success",
        &[
            (1, "success", None, None, 1),
            (2, "nothing-to-do", None, None, 0),
        ],
        (2, Some(2), None),
    ),
    (
        "only a transient failure",
        &[(1, "worker-timeout", Some(true), None, 0)],
        (1, None, None),
    ),
    (
        "transient failure after success",
        &[
            (1, "success", None, None, 1),
            (2, "worker-timeout", Some(true), None, 0),
        ],
        (2, Some(1), Some(1)),
    ),
    (
        "transient failure following a failure",
        &[
            (1, "build-failed", None, None, 0),
            (2, "worker-timeout", Some(true), None, 0),
        ],
        (2, Some(1), Some(1)),
    ),
    (
        "transient success is skipped",
        &[
            (1, "success", None, None, 1),
            (2, "success", Some(true), None, 1),
        ],
        (2, Some(1), Some(1)),
    ),
    (
        "only a transient success",
        &[(1, "success", Some(true), None, 1)],
        (1, None, None),
    ),
    (
        "nothing new counts as the success that it resumed from",
        &[
            (1, "success", None, None, 1),
            (2, NOTHING_NEW, None, Some(1), 0),
        ],
        (2, Some(1), Some(1)),
    ),
    (
        "nothing new of an earlier success",
        &[
            (1, "success", None, None, 1),
            (2, "build-failed", None, None, 0),
            (3, NOTHING_NEW, None, Some(1), 0),
        ],
        (3, Some(1), Some(1)),
    ),
    (
        "transient failure skips nothing new",
        &[
            (1, "success", None, None, 1),
            (2, NOTHING_NEW, None, Some(1), 0),
            (3, "worker-timeout", Some(true), None, 0),
        ],
        (3, Some(1), Some(1)),
    ),
    (
        "the last by start time is the last",
        &[
            (5, "success", None, None, 2),
            (1, "build-failed", None, None, 0),
        ],
        (1, Some(1), Some(1)),
    ),
];

async fn record(store: &Postgres, codebase: &str, number: usize, row: &Row) {
    let (minute, code, transient, resumed, branches) = *row;
    let id = |number: usize| format!("{codebase}-{number}");
    let active = steps::active(store, codebase, &id(number)).await;
    let start_time = start() + TimeDelta::minutes(minute);
    let branch = |index: usize| ResultBranch {
        role: format!("role-{index}"),
        name: None,
        base: Some("r1".into()),
        revision: Some(format!("{}-{index}", active.id)),
    };
    let run = Run {
        code: ResultCode::new(code),
        transient,
        resume_from: resumed.map(|number| RunId::new(id(number))),
        branches: Some((0..branches).map(branch).collect()),
        start_time,
        finish_time: start_time + TimeDelta::seconds(1),
        target: None,
        ..full_run(&active)
    };
    store.record(new_run(&active, run)).await.unwrap();
}

async fn last_run(url: &str, codebase: &str) -> (String, Option<String>, Option<String>) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_as(
        "SELECT last_run_id, last_effective_run_id, last_unabsorbed_run_id FROM last_run WHERE codebase = $1 AND campaign = 'gen'",
    )
    .bind(codebase)
    .fetch_one(&mut connection)
    .await
    .unwrap()
}

async fn table_holds(url: &str) {
    let store = servers::open_postgres(url).await;
    for (case, (what, rows, (last, effective, unabsorbed))) in TABLE.iter().enumerate() {
        let codebase = format!("cb-{case}");
        for (index, row) in rows.iter().enumerate() {
            record(&store, &codebase, index + 1, row).await;
        }
        let id = |number: &usize| format!("{codebase}-{number}");
        let expected = (
            id(last),
            effective.as_ref().map(id),
            unabsorbed.as_ref().map(id),
        );
        assert_eq!(last_run(url, &codebase).await, expected, "{what}");
        // The publisher marks the branches absorbed: a success is not to be published any more, a failure stays.
        let absorb = format!(
            "UPDATE new_result_branch SET absorbed = true WHERE run_id IN (SELECT id FROM run WHERE codebase = '{codebase}')"
        );
        servers::execute(url, &absorb).await;
        let failed = unabsorbed.filter(|number| rows[number - 1].1 != "success");
        let expected = (
            id(last),
            effective.as_ref().map(id),
            failed.as_ref().map(id),
        );
        assert_eq!(last_run(url, &codebase).await, expected, "{what}, absorbed");
    }
    // Not absorbed any more, and only one of two branches.
    servers::execute(
        url,
        "UPDATE new_result_branch SET absorbed = false WHERE run_id = 'cb-15-1' AND role = 'role-1'",
    )
    .await;
    let unabsorbed = last_run(url, "cb-15").await.2;
    assert_eq!(unabsorbed.as_deref(), Some("cb-15-1"));
}

/// A database with the Janitor's own triggers and functions, and without a row.
async fn janitors_database() -> String {
    let url = servers::empty_database().await;
    servers::execute(&url, &janitors_schema()).await;
    assert_eq!(
        schema::migrate(&url).await.unwrap().problems,
        Vec::<String>::new()
    );
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_runs_follow_the_rule_in_a_database_of_our_own() {
    table_holds(&servers::database().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_runs_follow_the_rule_with_the_janitors_triggers() {
    table_holds(&janitors_database().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn last_runs_follow_the_rule_without_any_trigger() {
    let url = servers::empty_database().await;
    let tables = janitors_schema();
    let tables = tables
        .split("-- What the Janitor's own")
        .next()
        .unwrap()
        .to_owned();
    servers::execute(&url, &tables).await;
    schema::migrate(&url).await.unwrap();
    table_holds(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn state_of_named_change_set_follows_its_runs() {
    let url = janitors_database().await;
    let store = servers::open_postgres(&url).await;
    store
        .upload_codebases(vec![bare_codebase("aa")])
        .await
        .unwrap();
    let mut candidate = new_candidate("aa");
    candidate.new.candidate.key.change_set = Some("set".into());
    let key = candidate.new.candidate.key.clone();
    let enqueue = EnqueueRequest {
        key,
        ..enqueue_request("aa", Bucket::Default, 1.0)
    };
    let candidate = ScheduledCandidate {
        enqueue,
        ..candidate
    };
    store
        .upload_candidates(vec![candidate], start())
        .await
        .unwrap();
    let active = store.claim(claim("r1")).await.unwrap().unwrap().run;
    store
        .record(new_run(&active, full_run(&active)))
        .await
        .unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let state = "SELECT state::text FROM change_set WHERE id = 'set'";
    let read: String = sqlx::query_scalar(state)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(read, "ready");
    // Their function fails: the run is stored all the same.
    servers::execute(
        &url,
        "DROP TRIGGER run_changed ON run;
         CREATE OR REPLACE FUNCTION refresh_change_set_state(change_set_id text) RETURNS text LANGUAGE plpgsql AS $$
         BEGIN RAISE EXCEPTION 'no'; END $$",
    )
    .await;
    let mut again = enqueue_request("aa", Bucket::Default, 1.0);
    again.key.change_set = Some("set".into());
    store.enqueue(batch(vec![again])).await.unwrap();
    let active = store.claim(claim("r2")).await.unwrap().unwrap().run;
    store
        .record(new_run(&active, full_run(&active)))
        .await
        .unwrap();
    assert_eq!(last_run(&url, "aa").await.0, "r2");
}
