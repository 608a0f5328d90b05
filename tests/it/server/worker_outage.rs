//! The bundled worker and a runner that is away when a result is to be uploaded.

use janitor_runner::worker::{Shutdown, WorkerConfig, WorkerError, work};
use serde_json::json;
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// How long the worker may take before the test fails.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Requests that a runner has seen.
#[derive(Default)]
struct Seen {
    claims: AtomicUsize,
    uploads: AtomicUsize,
}

/// Responds to one request: assigns a run to each that asks for one, and ends the connection of
/// those that upload.
async fn respond(mut stream: TcpStream, seen: &Seen) -> std::io::Result<()> {
    let mut head = vec![];
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if head.contains("/finish ") {
        seen.uploads.fetch_add(1, Ordering::SeqCst);
        return Ok(());
    }
    let (status, body) = if head.starts_with("POST /active-runs?") {
        let number = seen.claims.fetch_add(1, Ordering::SeqCst);
        let assignment = json!({
            "id": format!("r{number}"), "campaign": "gen", "codebase": "aa", "command": "true",
            "branch": { "url": "/nonexistent/repository", "vcs_type": "git" }, "env": {},
            "build": { "target": "generic", "config": {} },
            "target_repository": { "url": "/nonexistent/target" }
        });
        ("201 Created", assignment.to_string())
    } else {
        ("200 OK", "{}".to_owned())
    };
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(response.as_bytes()).await
}

fn config(url: String, work_dir: std::path::PathBuf, once: bool) -> WorkerConfig {
    WorkerConfig {
        url,
        name: "w1".into(),
        password: None,
        work_dir,
        campaign: None,
        codebase: None,
        backchannel: ([127, 0, 0, 1], 0).into(),
        backchannel_url: None,
        timeout: Duration::from_secs(20),
        build_command: None,
        git_config: None,
        pass_env: vec![],
        run_as: None,
        sandbox: None,
        owns_process: false,
        upload_retry_delays: vec![Duration::from_millis(10); 2],
        idle: Duration::from_millis(50),
        until_empty: false,
        once,
    }
}

/// Runs a worker until it exits or has asked for work three times.
async fn outcome(once: bool) -> (Option<Result<(), WorkerError>>, usize, usize) {
    let home = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (seen, shutdown) = (Seen::default(), Shutdown::default());
    let serve = async {
        while seen.claims.load(Ordering::SeqCst) < 3 {
            let (stream, _) = listener.accept().await.unwrap();
            // The worker may have closed the connection.
            drop(respond(stream, &seen).await);
        }
    };
    let working = Box::pin(work(
        config(url, home.path().join("work"), once),
        shutdown.clone(),
    ));
    let ended = tokio::time::timeout(TIMEOUT, async {
        tokio::select! {
            ended = working => Some(ended),
            () = serve => None,
        }
    });
    let ended = ended.await.unwrap();
    shutdown.immediate.cancel();
    let count = |counter: &AtomicUsize| counter.load(Ordering::SeqCst);
    (ended, count(&seen.claims), count(&seen.uploads))
}

#[tokio::test]
async fn worker_goes_on_after_a_result_that_could_not_be_uploaded() {
    let (ended, _, uploads) = outcome(false).await;
    assert!(ended.is_none(), "{ended:?}");
    assert_eq!(uploads, 6, "three attempts for each of two runs");
}

#[tokio::test]
async fn worker_of_one_run_fails_when_its_result_could_not_be_uploaded() {
    let (ended, claims, uploads) = outcome(true).await;
    assert!(
        matches!(ended, Some(Err(WorkerError::Unreachable(_)))),
        "{ended:?}"
    );
    assert_eq!((claims, uploads), (1, 3));
}
