//! What one worker may upload at a time.

use crate::support::process::{Server, client, send};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// Begins an upload of a run, and sends so many bytes of a file.
fn begin(server: &Server, id: &str, bytes: usize) -> TcpStream {
    let address = server.admin.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST /active-runs/{id}/finish HTTP/1.1\r\nHost: localhost\r\nContent-Type: \
         multipart/form-data; boundary=B\r\nContent-Length: 100000000\r\n\r\n--B\r\n\
         Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![b'x'; bytes]).unwrap();
    stream
}

fn status(mut stream: TcpStream) -> String {
    let mut head = [0; 12];
    stream
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    stream.read_exact(&mut head).unwrap();
    String::from_utf8_lossy(&head[9..]).into_owned()
}

/// The bytes of all files below a folder.
fn size(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(found) if found.is_dir() => size(&entry.path()),
            Ok(found) => found.len(),
            Err(_) => 0,
        })
        .sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_has_one_upload_at_a_time() {
    const FILE: usize = 2 << 20;
    let home = tempfile::tempdir().unwrap();
    let settings = "[limits]\nupload_idle_seconds = 3\n";
    let server = Server::start(home.path(), "memory:", settings).await;
    server.queue("aa", "gen").await;
    let id = server.claim_of("aa").await;
    // Six whose connections are lost, as far as the worker knows.
    let lost: Vec<_> = (0..6).map(|_| begin(&server, &id, FILE)).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let spooled = size(&home.path().join("spool"));
    assert!(spooled > 0, "the first is being received");
    assert!(spooled <= FILE as u64, "{spooled} bytes of one upload");
    // The last five are refused in turn, and the worker's next try is stored.
    let started = Instant::now();
    loop {
        let report = json!({ "code": "nothing-to-do" });
        match server.finish(&id, &report, &[]).await {
            (201, _) => break,
            (503, _) => {}
            other => panic!("{other:?}"),
        }
        assert!(started.elapsed() < Duration::from_secs(30));
    }
    drop(lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_beyond_the_sum_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let settings = "[limits]\nuploads_of_worker = \"3 MiB\"\nuploads = \"5 MiB\"\n";
    let server = Server::start(home.path(), "memory:", settings).await;
    let mut ids = vec![];
    for name in ["aa", "bb", "cc"] {
        server.queue(name, "gen").await;
        ids.push(server.claim_of(name).await);
    }
    let first = begin(&server, &ids[0], 2 << 20);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let second = begin(&server, &ids[1], 2 << 20);
    assert_eq!(status(second), "503");
    // Once the first has ended, the others can be uploaded.
    drop(first);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let file = vec![b'x'; 2 << 20];
    let report = json!({ "code": "success", "target": { "name": "generic", "details": {} } });
    let (stored, response) = server.finish(&ids[1], &report, &[("a", &file)]).await;
    assert_eq!(stored, 201, "{response}");
}

/// Sends a whole upload with this content type and beginning, and returns the status of the
/// response, which is read only then, as simple clients do.
fn status_after_all_was_sent(server: &Server, id: &str, kind: &str, begin: &str) -> String {
    const SIZE: usize = 24 << 20;
    let address = server.admin.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let length = begin.len() + SIZE;
    let head = format!(
        "POST /active-runs/{id}/finish HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n\
         Content-Length: {length}\r\n\r\n{begin}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let chunk = vec![b'x'; 1 << 20];
    for sent in 0..SIZE / chunk.len() {
        let written = stream.write_all(&chunk);
        assert!(written.is_ok(), "{kind}: {written:?} after {sent} MiB");
    }
    status(stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusal_reaches_a_client_that_sends_all_before_it_reads() {
    let home = tempfile::tempdir().unwrap();
    let settings = "[limits]\nuploads_of_worker = \"3 MiB\"\nuploads = \"5 MiB\"\n";
    let server = Server::start(home.path(), "memory:", settings).await;
    server.queue("aa", "gen").await;
    let id = server.claim_of("aa").await;
    let part = |headers: &str| format!("--B\r\n{headers}\r\n\r\n");
    let form = "multipart/form-data; boundary=B";
    let unnamed = part("Content-Disposition: form-data; name=\"a\"");
    let nested = part("Content-Type: multipart/mixed; boundary=C");
    let file = part("Content-Disposition: form-data; name=\"a\"; filename=\"a\"");
    for (kind, begin, expected) in [
        ("text/plain", "", "400"),
        (form, unnamed.as_str(), "400"),
        (form, nested.as_str(), "400"),
        (form, "--B other text", "400"),
        (form, file.as_str(), "503"),
    ] {
        let status = status_after_all_was_sent(&server, &id, kind, begin);
        assert_eq!(status, expected, "{kind}: {begin}");
    }
}

/// Sends a large body before it reads, on the public API; returns the status.
fn status_of_unread_body(server: &Server, head: &str) -> String {
    use std::io::{Read, Write};
    let address = server.public.strip_prefix("http://").unwrap();
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    let body = vec![b'x'; 8 << 20];
    let length = body.len();
    let head = format!("{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    connection.write_all(head.as_bytes()).unwrap();
    connection.write_all(&body).unwrap();
    let mut status = [0; 12];
    connection.read_exact(&mut status).unwrap();
    String::from_utf8_lossy(&status[9..]).into_owned()
}

#[tokio::test]
async fn response_reaches_a_client_whose_body_is_not_read() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", "").await;
    for (head, expected) in [
        ("GET /queue/stats", "200"),
        ("GET /no-such-page", "404"),
        ("POST /runner/active-runs", "401"),
        ("POST /runner/active-runs/x/finish", "401"),
    ] {
        assert_eq!(status_of_unread_body(&server, head), expected, "{head}");
    }
}

#[tokio::test]
async fn public_figures_are_read_once_in_five_seconds() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", "").await;
    server.queue("aa", "gen").await;
    server.queued_are(&["aa"]).await;
    let figures = async || {
        send(client().get(format!("{}/queue/stats", server.public)))
            .await
            .1
    };
    let first = figures().await;
    server.queue("bb", "gen").await;
    server.queued_are(&["bb"]).await;
    assert_eq!(figures().await, first, "it is a moment old");
    let started = Instant::now();
    while figures().await == first {
        assert!(started.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let elapsed = started.elapsed();
    assert!(elapsed > Duration::from_secs(3), "{elapsed:?}");
}
