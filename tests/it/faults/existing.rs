//! A database of the Janitor, with rows of every kind: the runner starts on it and changes nothing of the Janitor's.

use crate::support::{
    process::{PROGRAM, Server, send},
    servers,
};
use janitor_runner::adapters::postgres::schema;
use serde_json::json;
use sqlx::{Connection, PgConnection};
use std::process::Command;

/// The Janitor's tables with its own triggers, which fire for each row when a run is inserted, before its branches are.
pub(super) fn janitors_schema() -> String {
    let ours = include_str!("../../../migrations/janitor/0001_schema.sql");
    let tables = ours.split("-- last_run follows").next().unwrap();
    format!("{tables}{}", include_str!("janitor_triggers.sql"))
}

const ROWS: &str = include_str!("janitor_rows.sql");

async fn janitors_database() -> String {
    let url = servers::empty_database().await;
    servers::execute(&url, &janitors_schema()).await;
    servers::execute(&url, ROWS).await;
    url
}

/// Everything that belongs to the Janitor: columns, constraints, triggers, functions, and every row.
async fn janitor_snapshot(url: &str) -> Vec<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let mut all: Vec<String> = sqlx::query_scalar(
        "SELECT format('%s.%s %s %s', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull)
         FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
         WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0 AND c.relname NOT LIKE 'runner\\_%'
         UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
             AND conrelid::regclass::text NOT LIKE 'runner\\_%' AND contype <> 't'
         UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal AND tgname NOT LIKE 'runner\\_%'
         UNION ALL SELECT p.proname FROM pg_proc p WHERE p.pronamespace = 'public'::regnamespace AND p.proname NOT LIKE 'runner\\_%'
             AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
         ORDER BY 1",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let tables: Vec<String> =
        sqlx::query_scalar("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE 'runner\\_%' ORDER BY 1")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert!(tables.len() >= 13, "{tables:?}");
    for table in tables {
        let rows: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT t::text FROM {table} AS t ORDER BY 1"
        )))
        .fetch_all(&mut connection)
        .await
        .unwrap();
        assert!(!rows.is_empty(), "{table} has no row to compare");
        all.extend(rows.into_iter().map(|row| format!("{table}: {row}")));
    }
    all
}

async fn scalar(url: &str, sql: &'static str) -> Option<String> {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(sql)
        .fetch_one(&mut connection)
        .await
        .unwrap()
}

fn migrate(url: &str, more: &[&str]) -> (bool, String) {
    let output = Command::new(PROGRAM)
        .args(["migrate", "--store", url])
        .args(more)
        .output()
        .unwrap();
    (
        output.status.success(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migration_changes_nothing_of_the_janitor() {
    let url = janitors_database().await;
    let before = janitor_snapshot(&url).await;
    // Version 1 has the Janitor's own tables, which exist already.
    let ours = "  2: the runner's tables\n  3: leases, parked items, pauses, limits and logs of active runs\n  \
        4: names that say what the tables and columns hold\n  \
        5: one rule for the host of a branch URL\n  \
        6: what other services write has its effect\n  7: the audit log\n";
    assert_eq!(
        migrate(&url, &["--dry-run"]),
        (true, format!("Would apply:\n{ours}"))
    );
    assert_eq!(janitor_snapshot(&url).await, before);
    assert_eq!(migrate(&url, &[]), (true, format!("Applied:\n{ours}")));
    assert_eq!(
        migrate(&url, &[]),
        (true, "The database is up to date.\n".into())
    );
    let home = tempfile::tempdir().unwrap();
    // Without policies of its own, starting writes nothing either.
    let server = Server::start_plain(home.path(), &url).await;
    for path in [
        "/status",
        "/queue",
        "/candidates",
        "/codebases",
        "/queue/position?codebase=cb-old&campaign=gen",
        "/runs?limit=9",
        "/queue/stats",
    ] {
        assert_eq!(server.get(path).await.0, 200, "{path}");
    }
    assert_eq!(janitor_snapshot(&url).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_of_the_janitor_is_read_and_extended() {
    let url = janitors_database().await;
    assert!(migrate(&url, &[]).0);
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &url, "").await;
    let run = server.get("/runs/run-old?full=1").await.1;
    assert_eq!(run["code"], json!("success"));
    assert_eq!(run["tags"], json!([["upstream/1.0", "t1"]]));
    assert_eq!(run["branches"], json!([["main", "gen", "r1", "r2"]]));
    assert_eq!(server.get("/queue").await.1[0]["codebase"], "cb-old");
    // Passwords that pgcrypto hashed, with its default algorithm and with an older one.
    for (worker, password) in [("w-old", "secret-old"), ("w-md5", "secret-md5")] {
        let login = |password: &str| {
            server
                .public_request("GET", "/runner/active-runs/nosuch")
                .basic_auth(worker, Some(password))
                .send()
        };
        assert_eq!(
            login(password).await.unwrap().status().as_u16(),
            404,
            "{worker}"
        );
        assert_eq!(
            login("wrong").await.unwrap().status().as_u16(),
            401,
            "{worker}"
        );
    }
    // A command that differs from that of the open proposal's run is queued first of all.
    let upload = json!([{ "codebase": "cb-old", "campaign": "gen", "command": "other" }]);
    let stored = send(server.request("POST", "/candidates").json(&upload))
        .await
        .1;
    assert_eq!(
        stored["success"][0]["bucket"], "update-existing-mp",
        "{stored}"
    );
    let taken = send(
        server
            .request("POST", "/active-runs")
            .json(&json!({ "worker": "w-old" })),
    )
    .await
    .1;
    let report = json!({ "code": "success", "revision": "r9", "main_branch_revision": "r8", "branches": [["main", "gen", "r8", "r9"]] });
    let id = taken["id"].as_str().unwrap();
    assert_eq!(server.finish(id, &report, &[("w.log", b"x")]).await.0, 201);
    let last = scalar(
        &url,
        "SELECT concat_ws(' ', last_run_id = last_effective_run_id, last_run_id = last_unabsorbed_run_id) FROM last_run WHERE codebase = 'cb-old' AND campaign = 'gen'",
    );
    assert_eq!(last.await.as_deref(), Some("t t"));
}

#[tokio::test]
async fn incompatible_schema_is_reported_and_untouched() {
    let url = janitors_database().await;
    servers::execute(
        &url,
        "ALTER TABLE run DROP COLUMN failure_transient CASCADE; ALTER TABLE candidate ALTER success_chance TYPE text; DROP TABLE followup",
    )
    .await;
    let (done, output) = migrate(&url, &[]);
    assert!(!done);
    for problem in [
        "run.failure_transient is missing",
        "candidate.success_chance is of another type",
        "table followup is missing",
    ] {
        assert!(output.contains(problem), "{problem}: {output}");
    }
    assert_eq!(output.lines().count(), 4, "{output}");
    assert_eq!(
        scalar(&url, "SELECT to_regclass('runner_active_run')::text").await,
        None
    );
}

#[tokio::test]
async fn other_schema_versions_are_refused_with_the_command_to_run() {
    let start = |url: &str| {
        let output = Command::new(PROGRAM)
            .args(["check", "--store", url])
            .output()
            .unwrap();
        (
            output.status.success(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let empty = servers::empty_database().await;
    let (succeeded, output) = start(&empty);
    assert!(!succeeded, "{output}");
    assert!(output.contains("janitor-runner migrate"), "{output}");
    assert!(output.contains("1: the Janitor's tables"), "{output}");
    let newer = servers::database().await;
    servers::execute(
        &newer,
        "INSERT INTO runner_migrations (version, description, success, checksum, execution_time) VALUES (999, 'x', true, '', 0)",
    )
    .await;
    let (succeeded, output) = start(&newer);
    assert!(!succeeded, "{output}");
    assert!(
        output.contains("newer version of the runner (migration 999"),
        "{output}"
    );
    assert!(!migrate(&newer, &[]).0);
    let url = servers::empty_database().await;
    let both = tokio::join!(schema::migrate(&url), schema::migrate(&url));
    assert!(both.0.is_ok(), "{both:?}");
    assert!(both.1.is_ok(), "{both:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn version_order_needs_no_debversion_type() {
    let url = servers::database().await;
    servers::execute(&url, "ALTER TABLE debian_build ALTER version TYPE text").await;
    assert!(schema::plan(&url).await.unwrap().is_done());
    crate::contract::run_store::last_build_version_is_the_highest(
        &servers::open_postgres(&url).await,
    )
    .await;
}

#[tokio::test]
async fn check_says_whom_a_database_is_for() {
    let check = |url: &str| {
        let output = Command::new(PROGRAM)
            .args(["check", "--store", url])
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let alone = servers::database().await;
    assert!(check(&alone).contains("database     for this runner alone"));
    let full = janitors_database().await;
    servers::execute(
        &full,
        "CREATE TABLE publish (id text); CREATE TABLE review (run_id text)",
    )
    .await;
    assert!(migrate(&full, &[]).0);
    assert!(check(&full).contains("database     a full Janitor's"));
}
