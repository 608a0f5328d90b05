//! Whoever reads standard error or standard output may go, or never read: no request and no result is
//! lost for it.

use crate::support::process::{PROGRAM, Server, send};
use serde_json::json;
use std::{
    fs::File,
    io::{PipeReader, PipeWriter, Read},
    process::{Command, Stdio},
    time::Duration,
};

const REQUESTS: usize = 200;

/// A standard error that cannot be written.
fn full() -> File {
    File::options().write(true).open("/dev/full").unwrap()
}

/// Starts a server with a run that is active, and then once more with another standard error.
async fn restarted(stderr: impl Into<Stdio>) -> (tempfile::TempDir, Server, String) {
    let home = tempfile::tempdir().unwrap();
    let store = format!("sled:{}", home.path().join("db").display());
    // Each request writes some kilobytes, also those that a client cannot make longer.
    let log = "[telemetry]\nlog = \"trace\"\n";
    let mut server = Server::start(home.path(), &store, log).await;
    server.add_worker("w1", "secret1").await;
    server.queue("cb-one", "gen").await;
    let run = server.claim_of("cb-one").await;
    server.signal("TERM");
    assert!(server.wait_for_exit().await);
    server.run_with(stderr).await;
    (home, server, run)
}

async fn metric(server: &Server, name: &str) -> f64 {
    let text = server.get("/metrics").await.1;
    let line = text
        .as_str()
        .unwrap()
        .lines()
        .find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no {name}"))
        .trim()
        .parse()
        .unwrap()
}

/// Sends requests that are logged, and finishes the run.
async fn work(server: &Server, run: &str) {
    for _ in 0..REQUESTS {
        let request = server
            .request("GET", "/status")
            .header("x-request-id", "x".repeat(200))
            .timeout(Duration::from_secs(10));
        assert_eq!(send(request).await.0, 200);
    }
    let finished = server
        .finish(
            run,
            &json!({ "code": "success", "revision": "r1" }),
            &[("worker.log", b"done")],
        )
        .await;
    assert_eq!(finished.0, 201, "{finished:?}");
    assert_eq!(server.get(&format!("/runs/{run}")).await.0, 200);
}

async fn ends(server: &mut Server) {
    server.signal("TERM");
    let ended = tokio::time::timeout(Duration::from_secs(20), server.wait_for_exit()).await;
    assert!(ended.expect("the process ends"));
}

#[tokio::test]
async fn closed_stderr_loses_no_request() {
    let (reader, writer): (PipeReader, PipeWriter) = std::io::pipe().unwrap();
    let (_home, mut server, run) = restarted(writer).await;
    drop(reader);
    work(&server, &run).await;
    assert!(metric(&server, "janitor_runner_log_lines_dropped_total ").await > 0.0);
    ends(&mut server).await;
}

#[tokio::test]
async fn full_disk_behind_stderr_loses_no_request() {
    let (_home, mut server, run) = restarted(full()).await;
    work(&server, &run).await;
    assert!(metric(&server, "janitor_runner_log_lines_dropped_total ").await > 0.0);
    ends(&mut server).await;
}

#[tokio::test]
async fn unread_stderr_delays_no_request() {
    let (reader, writer) = std::io::pipe().unwrap();
    let (_home, mut server, run) = restarted(writer).await;
    work(&server, &run).await;
    ends(&mut server).await;
    drop(reader);
}

#[tokio::test]
async fn dropped_lines_are_counted_and_said_once() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (_home, mut server, _) = restarted(writer).await;
    // More than the pipe and the memory for lines hold.
    let dropped = "janitor_runner_log_lines_dropped_total ";
    for _ in 0..100 {
        for _ in 0..100 {
            let request = server
                .request("GET", "/status")
                .header("x-request-id", "x".repeat(200))
                .timeout(Duration::from_secs(10));
            assert_eq!(send(request).await.0, 200);
        }
        if metric(&server, dropped).await > 0.0 {
            break;
        }
    }
    assert!(metric(&server, dropped).await > 0.0);
    let read = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    });
    server
        .until("/metrics", |text| {
            text.as_str()
                .is_some_and(|text| text.contains("lines_dropped_total"))
        })
        .await;
    ends(&mut server).await;
    let text = read.join().unwrap();
    assert_eq!(text.matches("lines of the log were dropped").count(), 1);
}

#[tokio::test]
async fn worker_and_demo_run_without_readers() {
    let (_home, server, _) = restarted(full()).await;
    let url = server.admin.clone();
    let (worker, demo) = tokio::task::spawn_blocking(move || {
        let worker = Command::new(PROGRAM)
            .args([
                "worker",
                "--url",
                &url,
                "--name",
                "w1",
                "--until-empty",
                "--campaign",
                "strict",
            ])
            .stderr(full())
            .status();
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let demo = Command::new(PROGRAM)
            .arg("demo")
            .stdout(writer)
            .stderr(full())
            .status();
        (worker.unwrap(), demo.unwrap())
    })
    .await
    .unwrap();
    assert!(worker.success(), "{worker}");
    assert!(demo.success(), "{demo}");
}

#[test]
fn commands_are_quiet_when_their_reader_has_gone() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(PROGRAM)
        .arg("config")
        .stdout(writer)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.success(), "{}", output.status);
}

#[test]
fn commands_fail_when_their_output_cannot_be_written() {
    let output = Command::new(PROGRAM)
        .arg("config")
        .stdout(full())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("standard output"), "{text}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn commands_fail_quietly_without_a_reader_of_stderr() {
    let status = Command::new(PROGRAM)
        .args(["config", "--config", "/no/such/file"])
        .stderr(full())
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(1));
}
