//! Assigning, waiting for and killing runs.

use super::{id_of, server};
use crate::support::{fake_backchannel::FakeWorker, process::send};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[tokio::test]
async fn kill_reaches_the_worker_or_returns_not_implemented() {
    let (_home, server) = server().await;
    let fake = FakeWorker::start().await;
    fake.respond_with("/kill", 200, "ok");
    let take = |codebase: &'static str, more: Value| {
        let server = &server;
        async move {
            server.queue(codebase, "gen").await;
            let mut body = json!({ "worker": "w1", "codebase": codebase });
            body.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            id_of(&server.post("/active-runs", &body).await.1)
        }
    };
    let reached = take(
        "kill-a",
        json!({ "backchannel": { "kind": "http", "url": fake.url() } }),
    )
    .await;
    fake.respond_with("/log-id", 200, &reached);
    assert_eq!(
        server.post(&format!("/kill/{reached}"), &json!({})).await.0,
        200
    );
    assert_eq!(fake.received_requests("/kill"), 1);
    let leased = take("kill-b", json!({ "lease": true })).await;
    assert_eq!(
        server.post(&format!("/kill/{leased}"), &json!({})).await.1["cancel"],
        "killed by an operator"
    );
    assert_eq!(
        server
            .post(&format!("/active-runs/{leased}/keepalive"), &json!(null))
            .await
            .1["cancel"],
        "killed by an operator"
    );
    let newer = take(
        "kill-c",
        json!({ "backchannel": { "kind": "http", "url": format!("{}new/", fake.url()) } }),
    )
    .await;
    fake.respond_with("/new/log-id", 200, &format!("\"{newer}\""));
    assert_eq!(
        server.post(&format!("/kill/{newer}"), &json!({})).await.0,
        501
    );
    let neither = take("kill-d", json!({})).await;
    assert_eq!(
        server.post(&format!("/kill/{neither}"), &json!({})).await.0,
        501
    );
    for id in [reached, leased, newer, neither] {
        assert_eq!(
            server.get(&format!("/active-runs/{id}")).await.1["cancel"],
            "killed by an operator"
        );
    }
}

#[tokio::test]
async fn long_poll_returns_the_next_item() {
    let (_home, server) = server().await;
    let waiting = tokio::spawn(
        server
            .request("POST", "/active-runs?wait=20")
            .json(&json!({ "worker": "w1" }))
            .send(),
    );
    let other = server
        .public_request("POST", "/runner/active-runs?wait=1")
        .basic_auth("w2", Some("secret2"))
        .json(&json!({ "campaign": "strict" }));
    let began = Instant::now();
    assert_eq!(send(other).await, (503, json!({ "reason": "queue empty" })));
    assert!(began.elapsed() > Duration::from_millis(900));
    assert_eq!(
        send(
            server
                .request("POST", "/active-runs?wait=soon")
                .json(&json!({}))
        )
        .await
        .0,
        400
    );
    server.queue("wait-a", "gen").await;
    let began = Instant::now();
    let got = waiting.await.unwrap().unwrap();
    assert_eq!(got.status(), 201);
    assert!(
        began.elapsed() < Duration::from_millis(300),
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test]
async fn unassignable_item_ends_and_the_next_is_assigned() {
    let (_home, server) = server().await;
    server.queue("bad-dist", "baddist").await;
    server.queue("no-vcs", "strict").await;
    server
        .post(
            "/schedule-control",
            &json!({ "codebase": "no-vcs", "main_branch_revision": "r" }),
        )
        .await;
    server.queue("fine-one", "gen").await;
    let (status, taken) = server
        .post("/active-runs", &json!({ "worker": "w1" }))
        .await;
    assert_eq!(status, 201);
    assert_eq!(taken["codebase"], json!("fine-one"));
    // The items behind it end too, although each of them is queued again immediately.
    assert_eq!(
        server
            .post(
                "/active-runs",
                &json!({ "worker": "w1", "campaign": "strict" })
            )
            .await,
        (503, json!({ "reason": "queue empty" }))
    );
    let (_, runs) = server.get("/runs").await;
    let mut ended: Vec<_> = runs
        .as_array()
        .unwrap()
        .iter()
        .map(|run| {
            (
                run["codebase"].as_str().unwrap(),
                run["code"].as_str().unwrap(),
            )
        })
        .collect();
    ended.sort_unstable();
    assert_eq!(
        ended,
        [
            ("bad-dist", "unsupported-build-target"),
            ("no-vcs", "not-in-vcs"),
            ("no-vcs", "unknown-campaign")
        ]
    );
}

#[tokio::test]
async fn peek_claims_nothing() {
    let (_home, server) = server().await;
    server.queue("peek-a", "gen").await;
    let (status, peeked) = server.get("/active-runs/+peek").await;
    assert_eq!(status, 201);
    assert_eq!(peeked["codebase"], json!("peek-a"));
    assert_eq!(server.get("/active-runs").await.1, json!([]));
    server.take("peek-a").await;
    assert_eq!(
        server.get("/active-runs/+peek").await,
        (503, json!({ "reason": "queue empty" }))
    );
}

#[tokio::test]
async fn kill_without_backchannel_returns_not_implemented() {
    let (_home, server) = server().await;
    server.queue("kill-a", "gen").await;
    let id = server.take("kill-a").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let (status, response) = server.post(&format!("/kill/{id}"), &json!({})).await;
    assert_eq!(status, 501);
    assert_eq!(response, json!("kill not supported for this type of run"));
}

#[tokio::test]
async fn unknown_kind_of_backchannel_means_none() {
    let (_home, server) = server().await;
    server.queue("kind-a", "gen").await;
    let body = json!({ "worker": "w1", "codebase": "kind-a",
        "backchannel": { "kind": "carrier-pigeon", "url": 5 } });
    assert_eq!(server.post("/active-runs", &body).await.0, 422);
    let body = json!({ "worker": "w1", "codebase": "kind-a",
        "backchannel": { "kind": "carrier-pigeon", "url": "pigeon://loft" } });
    let (status, run) = server.post("/active-runs", &body).await;
    assert_eq!(status, 201);
    let path = format!("/active-runs/{}", id_of(&run));
    assert_eq!(server.get(&path).await.1["backchannel"], json!({}));
}

#[tokio::test]
async fn peek_names_the_location_and_claims_nothing() {
    let (_home, server) = server().await;
    server.queue("peek-a", "gen").await;
    let response = server
        .request("GET", "/active-runs/+peek")
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 201);
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let peeked: Value = response.json().await.unwrap();
    assert_eq!(location, format!("/active-runs/{}", id_of(&peeked)));
    assert_eq!(server.get("/active-runs").await.1, json!([]));
}

#[tokio::test]
async fn heartbeat_age_says_whether_a_run_is_missing() {
    let (_home, server) = server().await;
    server.queue("mia-a", "gen").await;
    server.take("mia-a").await;
    assert_eq!(server.get("/active-runs").await.1[0]["mia"], json!(false));
    let (_, status) = server.get("/status").await;
    assert_eq!(status["processing"][0]["mia"], json!(false));
}
