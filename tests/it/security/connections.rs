//! Clients that open connections and say or read nothing.

use crate::support::{
    process::{Server, upload},
    servers,
};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How many files the server may have open.
const DESCRIPTORS: u32 = 500;

/// Opens connections, each of which sends this and reads nothing.
async fn connect(url: &str, count: usize, sent: &str) -> Vec<TcpStream> {
    let address = url.strip_prefix("http://").unwrap();
    let mut open = vec![];
    for _ in 0..count {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(sent.as_bytes()).await.unwrap();
        open.push(stream);
    }
    open
}

/// Asserts that operators and a worker are served as if nobody else was there.
async fn served(server: &Server, codebase: &str) {
    let started = Instant::now();
    assert_eq!(server.get("/ready").await.0, 200);
    assert_eq!(server.get("/runs?limit=1").await.0, 200);
    server.queue(codebase, "gen").await;
    let claim = server
        .public_request("POST", "/runner/active-runs")
        .basic_auth("w1", Some("secret1"))
        .json(&json!({ "codebase": codebase }))
        .send()
        .await
        .unwrap();
    assert_eq!(claim.status(), 201);
    let id = claim.json::<serde_json::Value>().await.unwrap()["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let finished = server
        .public_request("POST", &format!("/runner/active-runs/{id}/finish"))
        .basic_auth("w1", Some("secret1"))
        .multipart(upload(&json!({ "code": "success" }), &[("w.log", b"log")]))
        .send()
        .await
        .unwrap();
    assert_eq!(finished.status(), 201);
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}\n{}", server.log());
}

async fn silent_connections_shut_nobody_out(store: &str, home: &std::path::Path) {
    let server = Server::with_descriptors(home, store, DESCRIPTORS).await;
    server.add_worker("w1", "secret1").await;
    let _silent = connect(&server.public, 490, "").await;
    served(&server, "silent-a").await;
    // The same with half a request, and on the admin listener.
    let _half = connect(&server.public, 200, "GET / HTTP/1.1\r\nHost: x\r\n").await;
    let _admin = connect(&server.admin, 300, "GET /ready HTTP/1.1\r\n").await;
    served(&server, "silent-b").await;
    let log = server.log();
    assert!(!log.contains("ERROR"), "{log}");
}

#[tokio::test]
async fn silent_connections_shut_nobody_out_on_sled() {
    let home = tempfile::tempdir().unwrap();
    let store = format!("sled:{}", home.path().join("db").display());
    silent_connections_shut_nobody_out(&store, home.path()).await;
}

#[tokio::test]
async fn silent_connections_shut_nobody_out_on_postgres() {
    let home = tempfile::tempdir().unwrap();
    silent_connections_shut_nobody_out(&servers::database().await, home.path()).await;
}

#[tokio::test]
async fn readers_that_stop_reading_hold_nothing_up() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::sled(home.path()).await;
    server.add_worker("w1", "secret1").await;
    server.queue("slow-a", "gen").await;
    let id = server.claim_of("slow-a").await;
    let log: Vec<u8> = (0_u32..8_000_000)
        .map(|n| b'a' + u8::try_from(n.wrapping_mul(2_654_435_761) >> 28).unwrap())
        .collect();
    let report = json!({ "code": "success" });
    let finished = server.finish(&id, &report, &[("w.log", &log)]).await;
    assert_eq!(finished.0, 201);
    let request = format!("GET /log/{id}/w.log HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut readers = connect(&server.admin, 600, &request).await;
    // All of them have begun to receive the log.
    for reader in &mut readers {
        let mut first = [0; 12];
        reader.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
    }
    served(&server, "slow-b").await;
    let memory = server.memory() >> 20;
    assert!(memory < 600, "{memory} MiB");
}

#[tokio::test]
async fn connections_beyond_the_limit_of_an_address_are_closed() {
    let home = tempfile::tempdir().unwrap();
    let settings = "[limits]\nconnections_per_address = 5\n";
    let server = Server::start(home.path(), "memory:", settings).await;
    server.add_worker("w1", "secret1").await;
    let mut silent = connect(&server.public, 20, "").await;
    let mut closed = 0;
    for stream in &mut silent {
        let mut byte = [0];
        let read = tokio::time::timeout(Duration::from_millis(100), stream.read(&mut byte)).await;
        closed += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    assert_eq!(closed, 15);
    served(&server, "address-a").await;
}
