//! Appending to the log of an active run, and following it.

use super::{id_of, leased, server};
use crate::support::process::{Server, send};
use serde_json::{Value, json};
use std::time::Duration;

async fn append(server: &Server, id: &str, name: &str, range: &str, bytes: &str) -> (u16, Value) {
    let path = format!("/active-runs/{id}/logs/{name}");
    send(
        server
            .request("PATCH", &path)
            .header("Content-Range", range)
            .body(bytes.to_owned()),
    )
    .await
}

#[tokio::test]
async fn live_log_is_appended_and_read_from_an_offset() {
    let (_home, server) = server().await;
    server.queue("live-a", "gen").await;
    let id = id_of(&leased(&server, "live-a").await);
    assert_eq!(
        append(&server, &id, "worker.log", "bytes 0-3/*", "one\n").await,
        (202, json!({ "size": 4, "cancel": null }))
    );
    assert_eq!(
        append(&server, &id, "worker.log", "bytes 0-3/*", "one\n")
            .await
            .0,
        202
    );
    let (status, gap) = append(&server, &id, "worker.log", "bytes 9-9/*", "x").await;
    assert_eq!(status, 416);
    assert_eq!(gap["size"], json!(4));
    let log = format!("/log/{id}/worker.log");
    assert_eq!(
        server.get(&format!("/log/{id}")).await.1,
        json!(["worker.log"])
    );
    assert_eq!(server.get(&format!("{log}?offset=2")).await.1, json!("e\n"));
}

#[tokio::test]
async fn invalid_appends_are_rejected() {
    let (_home, server) = server().await;
    server.queue("live-b", "gen").await;
    let id = id_of(&leased(&server, "live-b").await);
    append(&server, &id, "worker.log", "bytes 0-3/*", "one\n").await;
    for (range, bytes, status) in [
        ("bytes 4-9/*", "x", 400),
        ("nonsense", "x", 400),
        ("bytes 4-4/*", "", 400),
    ] {
        assert_eq!(
            append(&server, &id, "worker.log", range, bytes).await.0,
            status,
            "{range}"
        );
    }
    assert_eq!(
        append(&server, &id, "data.bin", "bytes 0-0/*", "x").await.0,
        422
    );
    assert_eq!(
        append(&server, &id, "..%2Fx.log", "bytes 0-0/*", "x")
            .await
            .0,
        422
    );
    assert_eq!(
        append(
            &server,
            &id,
            "worker.log",
            "bytes 4-2000003/*",
            &"x".repeat(2_000_000)
        )
        .await
        .0,
        413
    );
    assert_eq!(
        append(&server, "nosuch", "worker.log", "bytes 0-0/*", "x")
            .await
            .0,
        404
    );
}

#[tokio::test]
async fn live_log_is_followed_to_the_end() {
    let (_home, server) = server().await;
    server.queue("live-c", "gen").await;
    let id = id_of(&leased(&server, "live-c").await);
    append(&server, &id, "worker.log", "bytes 0-3/*", "one\n").await;
    let log = format!("/log/{id}/worker.log");
    let following = tokio::spawn(server.request("GET", &format!("{log}?follow=1")).send());
    let events = tokio::spawn(
        server
            .request("GET", &format!("{log}?follow=1&offset=4"))
            .header("Accept", "text/event-stream")
            .send(),
    );
    tokio::time::sleep(Duration::from_millis(100)).await;
    append(&server, &id, "worker.log", "bytes 4-11/*", "two\nthr").await;
    append(&server, &id, "worker.log", "bytes 4-10/*", "two\nthr").await;
    server
        .finish(
            &id,
            &json!({ "revision": "r" }),
            &[("worker.log", b"one\ntwo\nthree\n")],
        )
        .await;
    assert_eq!(
        following.await.unwrap().unwrap().text().await.unwrap(),
        "one\ntwo\nthree\n"
    );
    let events = events.await.unwrap().unwrap();
    assert_eq!(events.headers()["content-type"], "text/event-stream");
    let text = events.text().await.unwrap();
    assert!(text.contains("data: two\n"), "{text:?}");
    assert!(text.contains("data: three\n"), "{text:?}");
    assert!(text.contains("id: 14\n"), "{text:?}");
    assert!(
        text.ends_with("event: end\ndata: the run has ended\n\n"),
        "{text:?}"
    );
    assert_eq!(server.get(&log).await.1, "one\ntwo\nthree\n");
    assert_eq!(
        append(&server, &id, "worker.log", "bytes 0-0/*", "x")
            .await
            .0,
        410
    );
}

async fn events(server: &Server, log: &str) -> String {
    let request = server
        .request("GET", log)
        .header("Accept", "text/event-stream");
    request.send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn events_without_follow_say_whether_the_run_has_ended() {
    let (_home, server) = server().await;
    server.queue("live-d", "gen").await;
    let id = id_of(&leased(&server, "live-d").await);
    append(&server, &id, "worker.log", "bytes 0-3/*", "one\n").await;
    let log = format!("/log/{id}/worker.log");
    let text = events(&server, &log).await;
    assert!(text.contains("data: one\n"), "{text:?}");
    assert!(
        text.ends_with("event: active\ndata: the run is active\n\n"),
        "{text:?}"
    );
    server.finish(&id, &json!({ "revision": "r" }), &[]).await;
    let text = events(&server, &log).await;
    assert!(
        text.contains("data: one\n"),
        "the live log was kept: {text:?}"
    );
    assert!(
        text.ends_with("event: end\ndata: the run has ended\n\n"),
        "{text:?}"
    );
    let names = server.get(&format!("/log/{id}")).await.1;
    assert_eq!(names, json!(["worker.log"]));
}
