//! Random requests by the API's own description find no failure: no 5xx but 501 and 503, and no growth. `make fuzz` sends more.

use crate::support::{
    process::{Server, root},
    servers,
};
use std::process::{Command, Stdio};

/// How long requests are sent to each store, in seconds.
const SECONDS: &str = "60";

async fn fuzz(server: &Server) {
    let pid = server.pid().to_string();
    let mut command = Command::new("python3");
    command
        .arg(root().join("tests/fuzz/requests.py"))
        .args(["--admin", &server.admin, "--public", &server.public])
        .args(["--pid", &pid, "--seconds", SECONDS])
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(
        output.status.success(),
        "{text}{}\n{}",
        String::from_utf8_lossy(&output.stderr),
        server.log()
    );
    for line in ["a defect", "has no entry in the audit log"] {
        assert!(!server.log().contains(line), "{}", server.log());
    }
}

#[tokio::test]
async fn random_requests_find_no_failure_on_sled() {
    let home = tempfile::tempdir().unwrap();
    fuzz(&Server::sled(home.path()).await).await;
}

#[tokio::test]
async fn random_requests_find_no_failure_on_postgres() {
    let home = tempfile::tempdir().unwrap();
    let database = servers::database().await;
    fuzz(&Server::start(home.path(), &database, "").await).await;
}
