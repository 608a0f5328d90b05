//! Bodies that never end, never arrive, or are all preamble.

use crate::support::process::Server;
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const MIB: u64 = 1 << 20;

/// Sends a finish that begins with `head` and goes on with `rest` for ever; returns the status of
/// the response, and how much was sent until then.
async fn endless(server: &Server, id: &str, head: &str, rest: &[u8]) -> (u16, u64) {
    let address = server.admin.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "POST /active-runs/{id}/finish HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; \
         boundary=B\r\nContent-Length: 100000000000\r\n\r\n{head}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let (mut response, mut sent) = (vec![], 0);
    let sending = async {
        // The server closes the connection after its response.
        while writing.write_all(rest).await.is_ok() {
            sent += rest.len() as u64;
            assert!(sent < 2048 * MIB, "nothing ends it");
        }
    };
    let receiving = async {
        let mut byte = [0];
        while response.len() < 12 && reading.read_exact(&mut byte).await.is_ok() {
            response.push(byte[0]);
        }
    };
    tokio::select! { () = receiving => {}, () = sending => {} }
    let status = String::from_utf8_lossy(&response);
    let status = status
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.unwrap_or_default(), sent)
}

#[tokio::test]
async fn endless_uploads_take_no_memory() {
    let home = tempfile::tempdir().unwrap();
    let settings = "[limits]\nupload = \"64 MiB\"\nupload_file = \"1 MiB\"\n";
    let server = Server::start(home.path(), "memory:", settings).await;
    server.queue("end-a", "gen").await;
    let id = server.claim_of("end-a").await;
    let part = "--B\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n";
    let cases: [(&str, String, Vec<u8>, u16); 5] = [
        ("preamble", String::new(), vec![b'p'; 65_536], 413),
        (
            "part header",
            format!("{part}X-Long: "),
            vec![b'h'; 65_536],
            400,
        ),
        (
            "part headers",
            part.to_owned(),
            b"X-Many: yes\r\n".repeat(5000),
            400,
        ),
        (
            "boundaries",
            String::new(),
            format!("{part}\r\n\r\n").repeat(500).into_bytes(),
            413,
        ),
        ("file", format!("{part}\r\n"), vec![b'f'; 65_536], 413),
    ];
    let before = server.memory();
    for (what, head, rest, wanted) in cases {
        let (status, sent) = endless(&server, &id, &head, &rest).await;
        // The end of the connection may overtake the response.
        assert!([wanted, 0].contains(&status), "{what}: {status}");
        assert!(sent < 200 * MIB, "{what}: {} MiB were sent", sent / MIB);
        let grown = server.memory().saturating_sub(before) / MIB;
        assert!(grown < 32, "{what}: {grown} MiB more");
    }
    let finished = server.finish(&id, &json!({ "code": "success" }), &[]).await;
    assert_eq!(finished.0, 201, "{finished:?}");
}

/// Sends the head of a request whose body does not arrive; returns the status.
async fn without_body(server: &Server, method: &str, path: &str, kind: &str) -> u16 {
    let address = server.admin.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\n\
         Content-Range: bytes 0-99/*\r\nContent-Length: 100\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut response = [0; 12];
    stream.read_exact(&mut response).await.unwrap();
    String::from_utf8_lossy(&response[9..]).parse().unwrap()
}

#[tokio::test]
async fn bodies_that_never_arrive_are_given_up() {
    let home = tempfile::tempdir().unwrap();
    let settings = "[limits]\nupload_idle_seconds = 1\n";
    let server = Server::start(home.path(), "memory:", settings).await;
    for codebase in ["never-a", "never-b"] {
        server.queue(codebase, "gen").await;
    }
    let (active, finished) = (
        server.claim_of("never-a").await,
        server.claim_of("never-b").await,
    );
    assert_eq!(server.finish(&finished, &json!({}), &[]).await.0, 201);
    let multipart = "multipart/form-data; boundary=B";
    for (method, path, kind, wanted) in [
        (
            "POST",
            format!("/active-runs/{active}/finish"),
            multipart,
            408,
        ),
        (
            "POST",
            format!("/active-runs/{finished}/finish"),
            multipart,
            200,
        ),
        (
            "POST",
            "/active-runs/none/finish".to_owned(),
            multipart,
            404,
        ),
        ("POST", "/candidates".to_owned(), "application/json", 408),
        ("POST", "/active-runs".to_owned(), "application/json", 408),
        (
            "PATCH",
            format!("/active-runs/{active}/logs/w.log"),
            "text/plain",
            408,
        ),
    ] {
        let started = Instant::now();
        assert_eq!(
            without_body(&server, method, &path, kind).await,
            wanted,
            "{path}"
        );
        let took = started.elapsed();
        assert!(took < Duration::from_secs(5), "{path}: {took:?}");
    }
}
