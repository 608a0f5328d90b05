//! Reports and claims that are made to take memory or time.

use crate::support::process::{Server, send};
use serde_json::json;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;

/// A server with runs of a worker.
async fn server_with_runs(home: &std::path::Path, number: usize) -> (Server, Vec<String>) {
    let server = Server::start(home, "memory:", "").await;
    server.add_worker("w1", "secret1").await;
    let mut ids = vec![];
    for number in 0..number {
        let codebase = format!("rep-{number}");
        server.queue(&codebase, "gen").await;
        let request = server
            .public_request("POST", "/runner/active-runs")
            .basic_auth("w1", Some("secret1"))
            .json(&json!({ "lease": true, "codebase": codebase }));
        let (status, assignment) = send(request).await;
        assert_eq!(status, 201, "{assignment}");
        ids.push(assignment["id"].as_str().unwrap().to_owned());
    }
    (server, ids)
}

async fn finish(server: &Server, id: &str, report: Vec<u8>) -> (u16, serde_json::Value) {
    let request = server
        .public_request("POST", &format!("/runner/active-runs/{id}/finish"))
        .basic_auth("w1", Some("secret1"));
    let part = reqwest::multipart::Part::bytes(report).file_name("result.json");
    send(request.multipart(reqwest::multipart::Form::new().part("f", part))).await
}

#[tokio::test]
async fn reports_of_many_branches_delay_nobody() {
    let home = tempfile::tempdir().unwrap();
    let (server, ids) = server_with_runs(home.path(), 3).await;
    let branches: Vec<_> = (0..150_000)
        .map(|n| json!([format!("r{n}"), "n", "b", "r"]))
        .collect();
    let report = json!({ "code": "success", "branches": branches }).to_string();
    let before = server.memory();
    let finishing = ids
        .iter()
        .map(|id| finish(&server, id, report.clone().into_bytes()));
    let looking = async {
        let mut longest = Duration::ZERO;
        for _ in 0..50 {
            let started = Instant::now();
            assert_eq!(server.get("/health").await.0, 200);
            longest = longest.max(started.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        longest
    };
    let (finished, longest) = tokio::join!(futures::future::join_all(finishing), looking);
    for (status, response) in finished {
        assert_eq!(status, 201, "{response}");
        assert_eq!(response["result"]["code"], "worker-invalid-result");
    }
    assert!(longest < Duration::from_secs(2), "{longest:?}");
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB", grown / MIB);
}

#[tokio::test]
async fn reports_of_many_values_take_no_memory() {
    let home = tempfile::tempdir().unwrap();
    let (server, ids) = server_with_runs(home.path(), 9).await;
    let before = server.memory();
    let text = |value: &str, size: usize| {
        let values = value.repeat(size / value.len());
        format!("{{\"code\": \"success\", \"details\": [{values}0]}}").into_bytes()
    };
    for (ids, value, size) in [
        (&ids[..3], "[],", 60 << 20),
        (&ids[3..6], "[1],", 7 << 20),
        (&ids[6..], "{\"a\":{}},", 7 << 20),
    ] {
        let finishing = ids.iter().map(|id| finish(&server, id, text(value, size)));
        for (status, response) in futures::future::join_all(finishing).await {
            assert_eq!(status, 201, "{response}");
            assert_eq!(response["result"]["code"], "worker-invalid-result");
        }
    }
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB", grown / MIB);
}

#[tokio::test]
async fn memory_of_large_requests_is_given_back() {
    let home = tempfile::tempdir().unwrap();
    let (server, _) = server_with_runs(home.path(), 0).await;
    let before = server.memory();
    let entries: Vec<_> = (0..300_000)
        .map(|n| json!({ "name": format!("c{n}"), "unknown": "y".repeat(50) }))
        .collect();
    let mut entries = json!(entries);
    entries.as_array_mut().unwrap().push(json!(5));
    for _ in 0..4 {
        assert_eq!(server.post("/codebases", &entries).await.0, 422);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let kept = server.memory().saturating_sub(before);
    assert!(kept < 32 * MIB, "{} MiB", kept / MIB);
}

#[tokio::test]
async fn claims_with_large_bodies_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let (server, _) = server_with_runs(home.path(), 0).await;
    let before = server.memory();
    let body = json!({ "unknown": "x".repeat(10 << 20) }).to_string();
    let claims = (0..20).map(|_| {
        let request = server
            .public_request("POST", "/runner/active-runs")
            .basic_auth("w1", Some("secret1"))
            .header("content-type", "application/json")
            .body(body.clone());
        send(request)
    });
    for (status, response) in futures::future::join_all(claims).await {
        assert_eq!(status, 413, "{response}");
    }
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 64 * MIB, "{} MiB", grown / MIB);
}
