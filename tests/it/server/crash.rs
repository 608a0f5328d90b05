//! The server is killed repeatedly under load: whatever it acknowledged is stored afterwards.

use crate::support::{
    load::{Load, assert_nothing_lost},
    process::Server,
    servers,
};
use janitor_runner::{adapters::clock::RandomIds, ports::Ids};
use std::time::Duration;

const KILLS: u32 = 10;
const CLIENTS: usize = 6;

/// A delay that differs from run to run of the test, up to half a second.
fn some_time() -> Duration {
    let [first, second, ..] = *RandomIds.fresh().as_bytes() else {
        unreachable!("an id has more than two characters")
    };
    Duration::from_millis(80 + u64::from(first) * 7 % 210 + u64::from(second) * 13 % 210)
}

async fn kill_repeatedly(home: &tempfile::TempDir, mut server: Server) {
    server.add_worker("w1", "secret1").await;
    let load = Load::start(&[&server], CLIENTS);
    for _ in 0..KILLS {
        tokio::time::sleep(some_time()).await;
        server.kill();
        server.run().await;
    }
    let seen = load.stop().await;
    println!(
        "{} codebases, {} claims, {} results acknowledged over {KILLS} kills",
        seen.codebases.len(),
        seen.claims.len(),
        seen.results.len()
    );
    assert!(
        seen.results.len() > 20,
        "too few results to be conclusive: {}",
        seen.results.len()
    );
    assert_nothing_lost(&server, &seen).await;
    for id in seen.results.keys() {
        assert_eq!(
            std::fs::read_to_string(home.path().join("artifacts").join(id).join("out")).unwrap(),
            *id
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_on_sled_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::sled(home.path()).await;
    kill_repeatedly(&home, server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_on_redb_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let store = format!("redb:{}", home.path().join("db").display());
    let server = Server::start(home.path(), &store, "").await;
    kill_repeatedly(&home, server).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_on_postgres_lose_nothing() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &servers::database().await, "").await;
    kill_repeatedly(&home, server).await;
}
