//! The exchanges recorded with the Python runner, on every kind of store.

use crate::support::{
    process::{Server, root},
    servers,
};
use tokio::process::Command;

async fn replay(store: &str, settings: &str) {
    let home = tempfile::tempdir().unwrap();
    let store = store.replace("HOME", home.path().to_str().unwrap());
    let server = Server::start(home.path(), &store, settings).await;
    server.add_worker("w1", "secret1").await;
    server.add_worker("w2", "secret2").await;
    let golden = root().join("tests/golden");
    let output = Command::new("python3")
        .arg(golden.join("replay.py"))
        .args([
            "compare".as_ref(),
            golden.join("scenarios.py").as_os_str(),
            golden.join("golden.jsonl").as_os_str(),
        ])
        .args(["--admin", &server.admin, "--public", &server.public])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .await
        .expect("python3 runs the recorded exchanges");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        stdout.ends_with("103 same, 0 differing\n"),
        "{stdout}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success());
}

#[tokio::test]
async fn recorded_exchanges_match_on_sled() {
    replay("sled:HOME/db", "").await;
}

#[tokio::test]
async fn recorded_exchanges_match_on_redb() {
    replay("redb:HOME/db", "").await;
}

#[tokio::test]
async fn recorded_exchanges_match_in_memory() {
    replay("memory:", "").await;
}

#[tokio::test]
async fn recorded_exchanges_match_on_postgres_and_redis() {
    let (redis, gcs) = (servers::Private::start(&["redis"]), servers::bucket().await);
    let settings = format!(
        "events = \"{0}\"\ncoordination = \"{0}\"\n{gcs}",
        redis.url("redis")
    );
    replay(&servers::database().await, &settings).await;
}
