//! What codemods can do in the sandbox.

use crate::server::worker_fixture::WorkerFixture;

/// Looks around, and tries to leave something behind. Python is there, since git's tests need it.
const LOOK_AROUND: &str = r#"
echo "processes $(ls -d /proc/[0-9]* | wc -l)"
touch /etc/left-behind 2>/dev/null || echo "no write to /etc"
echo mine > /tmp/mine && ls -A /tmp | grep -v '^mine$' | grep -v "$(basename "$WORK_DIR")" | sed 's/^/in tmp: /'
ls /run/* >/dev/null 2>&1 || echo "nothing in /run"
cat "$HIDDEN" 2>/dev/null || echo "no home of the worker"
python3 -c '
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2)
    print("network")
except OSError:
    print("no network")
' "$SERVER_PORT"
echo changed > changed.txt
"#;

async fn log_of(network: bool) -> (serde_json::Value, String) {
    let mut fixture = WorkerFixture::start().await;
    let home = tempfile::tempdir().unwrap();
    let hidden = home.path().join("token");
    std::fs::write(&hidden, "the token of the worker").unwrap();
    let port = fixture
        .harness
        .server
        .admin
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let run = fixture
        .run_with(LOOK_AROUND, |worker| {
            worker
                .args(["--sandbox", "bwrap"])
                .args([
                    "--pass-env",
                    "HIDDEN",
                    "--pass-env",
                    "SERVER_PORT",
                    "--pass-env",
                    "WORK_DIR",
                ])
                .env("HOME", home.path())
                .env("HIDDEN", &hidden)
                .env("WORK_DIR", "janitor")
                .env("SERVER_PORT", &port);
            if network {
                worker.arg("--sandbox-network");
            }
        })
        .await;
    let log = fixture.log(&run).await;
    assert!(!std::path::Path::new("/etc/left-behind").exists());
    (run, log)
}

#[tokio::test]
async fn codemod_in_the_sandbox_reaches_only_its_checkout() {
    let (run, log) = log_of(false).await;
    assert_eq!(run["code"], "success", "{run} {log}");
    for line in [
        "no write to /etc",
        "nothing in /run",
        "no home of the worker",
        "no network",
    ] {
        assert!(log.lines().any(|found| found == line), "{line}: {log}");
    }
    let count = log.lines().find_map(|line| line.strip_prefix("processes "));
    let count: usize = count.unwrap().trim().parse().unwrap();
    assert!(count < 10, "{count} processes: {log}");
    assert!(!log.contains("the token of the worker"), "{log}");
}

#[tokio::test]
async fn network_is_there_when_it_is_allowed() {
    let (run, log) = log_of(true).await;
    assert_eq!(run["code"], "success", "{run} {log}");
    assert!(log.lines().any(|found| found == "network"), "{log}");
    assert!(
        log.lines().any(|found| found == "no home of the worker"),
        "{log}"
    );
}

#[tokio::test]
async fn worker_without_bubblewrap_ends_and_says_so() {
    let fixture = WorkerFixture::start().await;
    let mut worker = fixture
        .harness
        .command("w1", &fixture.harness.server.public);
    worker
        .args(["--sandbox", "bwrap"])
        .env("PATH", "/nowhere")
        .stderr(std::process::Stdio::piped());
    let output = crate::server::worker_fixture::end_of(worker).await;
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("bubblewrap"), "{text}");
}
