//! The API as clients see it, over a real server on embedded stores: responses to good, bad and repeated requests.

mod active_runs;
mod bad_input;
mod callers;
mod catalog;
mod finish;
mod health;
mod keepalive;
mod lines;
mod live_logs;
mod logs;
mod parked;
mod pauses;
mod queue;
mod runs;
mod shutdown;
mod upload;
mod watchdog;
mod workers;

use crate::support::process::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A server with the workers w1 and w2, in a folder that is removed with it.
pub async fn server() -> (TempDir, Server) {
    server_with("").await
}

pub async fn server_with(settings: &str) -> (TempDir, Server) {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", settings).await;
    server.add_worker("w1", "secret1").await;
    server.add_worker("w2", "secret2").await;
    (home, server)
}

async fn leased(server: &Server, codebase: &str) -> Value {
    let taken = server
        .post(
            "/active-runs",
            &json!({ "worker": "w1", "codebase": codebase, "lease": true }),
        )
        .await;
    assert_eq!(taken.0, 201, "{taken:?}");
    taken.1
}

fn id_of(run: &Value) -> String {
    run["id"].as_str().unwrap().to_owned()
}

/// Leases of two seconds, checked every second.
pub const SHORT_TIMEOUTS: &str = "keepalive_interval_seconds = 1\n[watch]\nlease_seconds = 2\nping_after_seconds = 1\nsuspect_after_seconds = 1\n[backchannel]\ntimeout_seconds = 1\n";
