//! Uploads of lines (`application/x-ndjson`).

use crate::support::{
    for_each_store,
    process::{Server, send},
    worker_harness::store,
};
use axum::body::Bytes;
use futures::{StreamExt, stream};
use serde_json::{Value, json};
use std::convert::Infallible;

async fn upload(server: &Server, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let request = server.request("POST", path);
    let request = request.header("content-type", "application/x-ndjson; charset=utf-8");
    send(request.body(body)).await
}

async fn entries_of_lines_are_stored_each_on_its_own(kind: &str) {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &store(kind, home.path()).await, "").await;
    let mut lines: Vec<String> = (0..600)
        .map(|number| json!({ "name": format!("c{number:03}"), "url": format!("https://h/{number}") }))
        .map(|codebase| codebase.to_string())
        .collect();
    lines.insert(3, String::new());
    lines.insert(4, "{not json".into());
    lines.insert(5, json!({ "name": 7 }).to_string());
    // The location of another refuses one entry, not its step.
    let taken = json!({ "name": "zz", "url": "https://h/9", "subpath": "s" });
    let also = json!({ "name": "yy", "url": "https://h/9", "subpath": "s" });
    lines.insert(100, also.to_string());
    lines.insert(101, taken.to_string());
    lines.insert(102, "x".repeat((1 << 20) + 1));
    let (status, report) = upload(&server, "/codebases", lines.join("\n")).await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(
        (&report["lines"], &report["stored"]),
        (&json!(606), &json!(601)),
        "{report}"
    );
    let wrong: Vec<u64> = report["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["line"].as_u64().unwrap())
        .collect();
    let mut sorted = wrong.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [5, 6, 102, 103], "{report}");
    assert_eq!(report["rejected"], 4);
    let stored = server.get("/codebases").await.1;
    assert_eq!(stored.as_array().unwrap().len(), 601);

    let candidate = |codebase: &str, campaign: &str| {
        json!({ "codebase": codebase, "campaign": campaign, "command": "true" }).to_string()
    };
    let lines = [
        candidate("c000", "gen"),
        candidate("nosuch", "gen"),
        candidate("c001", "nosuch"),
        json!({ "campaign": "gen" }).to_string(),
        candidate("c002", "gen") + "\r",
    ];
    let (status, report) = upload(&server, "/candidates", lines.join("\n") + "\n").await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(
        (&report["stored"], &report["rejected"]),
        (&json!(2), &json!(3)),
        "{report}"
    );
    let queued = server.get("/queue?limit=10").await.1;
    assert_eq!(queued.as_array().unwrap().len(), 2, "{queued}");
    let audit = server.get("/audit?limit=10").await.1;
    assert!(audit.to_string().contains("2 entries of lines"), "{audit}");
    assert_eq!(upload(&server, "/candidates", "").await.1["lines"], 0);
}

for_each_store!(entries_of_lines_are_stored_each_on_its_own);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_the_number_of_lines() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", "").await;
    let before = server.memory();
    let line = format!("{}\n", json!({ "name": 7, "text": "x".repeat(1000) }));
    let chunk = Bytes::from(line.repeat(100));
    let chunks = stream::repeat(chunk).take(3000).map(Ok::<_, Infallible>);
    let body = reqwest::Body::wrap_stream(chunks);
    let (status, report) = upload(&server, "/codebases", body).await;
    assert_eq!(status, 200, "{report}");
    assert_eq!(report["rejected"], 300_000);
    assert_eq!(report["errors"].as_array().unwrap().len(), 100);
    let grown = server.memory().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown}");
}
