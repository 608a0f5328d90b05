//! The host of a branch URL: one rule in Rust and in SQL, also for what was stored before there was
//! one.

use crate::support::{servers, start, values::*};
use janitor_runner::{
    domain::{
        host,
        pause::{ConcurrencyLimit, Pause, Scope},
        queue::Bucket,
    },
    ports::{ActiveRunStore, Catalog, PauseStore, QueueStore},
};
use sqlx::{Connection, PgConnection};

const TABLE: &str = include_str!("../../data/hosts.tsv");

#[tokio::test]
async fn sql_function_returns_the_hosts_of_the_table() {
    let url = servers::database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for row in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let (branch_url, expected) = row.split_once('\t').unwrap();
        let found: Option<String> = sqlx::query_scalar("SELECT runner_host($1)")
            .bind(branch_url)
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(
            found.as_deref(),
            (expected != "-").then_some(expected),
            "{branch_url}"
        );
    }
}

/// Every text of up to five of the signs that the rule knows.
#[tokio::test]
async fn sql_function_agrees_with_rust_on_odd_texts() {
    const PIECES: [&str; 10] = ["://", "a", "B", "@", ":", "/", ",", "[", "]", "."];
    let texts = |length: u32| {
        (0..10_usize.pow(length)).map(move |number| {
            (0..length)
                .map(|place| PIECES[number / 10_usize.pow(place) % 10])
                .collect::<String>()
        })
    };
    let all: Vec<String> = (0..=4)
        .flat_map(texts)
        .flat_map(|text| [format!("s://{text}"), text])
        .collect();
    let url = servers::database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let found: Vec<Option<String>> = sqlx::query_scalar(
        "SELECT runner_host(url) FROM unnest($1::text[]) WITH ORDINALITY AS t (url, place)
         ORDER BY place",
    )
    .bind(&all)
    .fetch_all(&mut connection)
    .await
    .unwrap();
    for (text, found) in all.iter().zip(found) {
        assert_eq!(host::host_of(text), found, "{text}");
    }
}

#[tokio::test]
async fn sql_function_is_put_in_the_place_of_its_call() {
    let url = servers::database().await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let plan: Vec<String> = sqlx::query_scalar(
        "EXPLAIN (VERBOSE, COSTS OFF) SELECT runner_host(branch_url) FROM codebase",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let plan = plan.join("\n");
    assert!(!plan.contains("runner_host"), "{plan}");
}

#[tokio::test]
async fn host_is_compared_in_its_normal_form() {
    let url = servers::database().await;
    let store = servers::open_postgres(&url).await;
    let codebase = codebase_at("aa", "git@Forge.EXAMPLE:group/x.git");
    store.upload_codebases(vec![codebase]).await.unwrap();
    let queued = batch(vec![enqueue_request("aa", Bucket::Default, 1.0)]);
    store.enqueue(queued).await.unwrap();
    let scope = Scope::parse("host", Some("FORGE.example.:22")).unwrap();
    let pause = Pause {
        scope: scope.clone(),
        reason: "why".into(),
        since: start(),
        until: None,
    };
    store.pause(pause).await.unwrap();
    assert_eq!(store.claim(claim("r1")).await.unwrap(), None);
    assert!(store.unpause(&scope).await.unwrap());
    let none = ConcurrencyLimit {
        scope: scope.clone(),
        most: 0,
    };
    store.set_limit(none).await.unwrap();
    assert_eq!(store.claim(claim("r2")).await.unwrap(), None);
    assert!(store.remove_limit(&scope).await.unwrap());
    let run = store.claim(claim("r3")).await.unwrap().unwrap().run;
    assert_eq!(run.host.as_deref(), Some("forge.example"));
    let stored = ActiveRunStore::get(&store, &run.id).await.unwrap();
    assert_eq!(stored.unwrap().host.as_deref(), Some("forge.example"));
}

#[tokio::test]
async fn hosts_stored_before_are_normalized() {
    let url = servers::empty_database().await;
    for migration in [
        include_str!("../../../migrations/janitor/0001_schema.sql"),
        include_str!("../../../migrations/runner/0001_runner.sql"),
        include_str!("../../../migrations/runner/0002_watching.sql"),
        include_str!("../../../migrations/runner/0003_names.sql"),
        "INSERT INTO codebase (name, branch_url, url)
         VALUES ('aa', 'https://u@H.example:8443/x', 'https://u@H.example:8443/x');
         INSERT INTO runner_active_run
             (run_id, queue_id, token, claimant, item, start_time, keepalive, vcs, host)
         VALUES ('r1', 1, 't', '{}', '{\"codebase\": \"aa\"}', now(), now(), '{}', 'H.example:8443');
         INSERT INTO runner_host_backoff VALUES
             ('H.example', '2026-01-01'), ('h.example:443', '2026-01-03'),
             ('h.example', '2026-01-02'), ('other', '2026-01-01');
         INSERT INTO runner_pause (kind, name, reason, since, until) VALUES
             ('host', 'H.example', 'short', now(), '2026-01-01'),
             ('host', 'h.example:443', 'for ever', now(), NULL),
             ('host', 'h.example', 'long', now(), '2026-01-02'),
             ('worker', 'W:1', 'stays', now(), NULL);
         INSERT INTO runner_limit VALUES
             ('host', 'H.example', 1), ('host', 'h.example', 5), ('host', 'X.', 2)",
        include_str!("../../../migrations/runner/0004_hosts.sql"),
    ] {
        servers::execute(&url, migration).await;
    }
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for (sql, expected) in [
        ("SELECT host FROM runner_active_run", vec!["h.example"]),
        (
            "SELECT host || ' ' || until::date FROM runner_host_backoff ORDER BY 1",
            vec!["h.example 2026-01-03", "other 2026-01-01"],
        ),
        (
            "SELECT name || ' ' || reason FROM runner_pause ORDER BY 1",
            vec!["W:1 stays", "h.example for ever"],
        ),
        (
            "SELECT name || ' ' || max_running FROM runner_limit ORDER BY 1",
            vec!["h.example 1", "x 2"],
        ),
    ] {
        let mut found: Vec<String> = sqlx::query_scalar(sql)
            .fetch_all(&mut connection)
            .await
            .unwrap();
        found.sort();
        assert_eq!(found, expected, "{sql}");
    }
}
