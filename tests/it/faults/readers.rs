//! Lists of Postgres that take long: they keep no claim waiting, and end with their readers.

use crate::support::{process::Server, servers};
use sqlx::{Connection, PgConnection};
use std::time::{Duration, Instant};

/// More than there are connections.
const READERS: usize = 30;

async fn waiting_statements(connection: &mut PgConnection) -> i64 {
    let count = "SELECT count(*) FROM pg_stat_activity \
        WHERE datname = current_database() AND state = 'active' AND query LIKE '%FROM candidate%' \
        AND pid <> pg_backend_pid()";
    sqlx::query_scalar(count)
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_keep_no_claim_waiting_and_their_statements_end_with_them() {
    let home = tempfile::tempdir().unwrap();
    let url = servers::database().await;
    let server = Server::start(home.path(), &url, "").await;
    for codebase in ["aa", "bb", "cc"] {
        server.queue(codebase, "gen").await;
    }
    // Whoever reads the candidates waits.
    let mut holder = PgConnection::connect(&url).await.unwrap();
    let mut holding = holder.begin().await.unwrap();
    sqlx::query("LOCK TABLE candidate IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *holding)
        .await
        .unwrap();
    let readers: Vec<_> = (0..READERS)
        .map(|_| tokio::spawn(server.request("GET", "/candidates?limit=10").send()))
        .collect();
    let mut watcher = PgConnection::connect(&url).await.unwrap();
    while waiting_statements(&mut watcher).await == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..3 {
        let started = Instant::now();
        let claim = server.request("POST", "/active-runs");
        let claimed = claim.json(&serde_json::json!({})).send().await.unwrap();
        assert_eq!(claimed.status(), 201);
        assert!(started.elapsed() < Duration::from_secs(1));
    }
    assert!(waiting_statements(&mut watcher).await > 0);
    for reader in readers {
        reader.abort();
    }
    let started = Instant::now();
    while waiting_statements(&mut watcher).await > 0 {
        assert!(started.elapsed() < Duration::from_secs(4), "they go on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    holding.rollback().await.unwrap();
    assert_eq!(server.get("/candidates?limit=2").await.0, 200);
}
