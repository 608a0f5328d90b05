//! Worker accounts and logins.

use super::{server, server_with};
use crate::support::process::{client, send};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

#[tokio::test]
async fn worker_accounts_are_managed_over_the_api() {
    let (_home, server) = server().await;
    let (status, added) = server
        .post(
            "/admin/workers",
            &json!({ "name": "w3", "link": "http://w3/" }),
        )
        .await;
    let password = added["password"].as_str().unwrap().to_owned();
    assert_eq!(status, 201);
    assert_eq!(password.len(), 64);
    let log_in = |password: String| {
        let url = format!("{}/runner/active-runs", server.public);
        async move {
            send(
                client()
                    .post(url)
                    .basic_auth("w3", Some(password))
                    .json(&json!({})),
            )
            .await
            .0
        }
    };
    assert_eq!(log_in(password.clone()).await, 503);
    let (_, rotated) = server.post("/admin/workers/w3/rotate", &json!({})).await;
    assert_eq!(log_in(password).await, 401);
    assert_eq!(
        log_in(rotated["password"].as_str().unwrap().to_owned()).await,
        503
    );
    let (_, page) = server.get("/admin/workers?limit=2").await;
    assert_eq!(page["workers"].as_array().unwrap().len(), 2);
    assert_eq!(page["next"], json!("w2"));
    let (_, rest) = server.get("/admin/workers?limit=2&cursor=w2").await;
    assert_eq!(rest["workers"][0]["link"], json!("http://w3/"));
    assert_eq!(rest["next"], json!(null));
    assert!(!page.to_string().contains("secret"));
    assert!(!page.to_string().contains("argon"));
    assert_eq!(
        send(server.request("DELETE", "/admin/workers/w3")).await.0,
        200
    );
    assert_eq!(
        log_in(rotated["password"].as_str().unwrap().to_owned()).await,
        401
    );
}

#[tokio::test]
async fn busy_worker_is_removed_only_by_force() {
    let (_home, server) = server().await;
    server.queue("busy-a", "gen").await;
    let id = server.take("busy-a").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let (_, workers) = server.get("/workers").await;
    assert_eq!(
        workers,
        json!({ "workers": [{ "name": "w1", "status": "active" }, { "name": "w2", "status": "idle" }], "total": 2, "active": 1, "idle": 1, "next": null })
    );
    assert_eq!(
        server.get("/admin/workers").await.1["workers"][0]["runs"],
        json!([id])
    );
    assert_eq!(
        send(server.request("DELETE", "/admin/workers/w1")).await.0,
        409
    );
    assert_eq!(
        send(server.request("DELETE", "/admin/workers/w1?force=1"))
            .await
            .0,
        200
    );
    // Its claim went back to the queue.
    let (status, finished) = server.finish(&id, &json!({ "code": "success" }), &[]).await;
    assert_eq!(status, 404, "{finished}");
    assert_ne!(server.take("busy-a").await["id"], json!(id));
}

#[tokio::test]
async fn wrong_login_is_rejected_before_the_body_is_read() {
    let (_home, server) = server().await;
    let url = format!("{}/runner/active-runs", server.public);
    for header in [
        "",
        "Bearer x",
        "Basic",
        "Basic !!!",
        "Basic dzE=",
        "Basic dzE6d3Jvbmc=",
        "basic bm9ib2R5Og==",
    ] {
        let request = client()
            .post(&url)
            .header("Content-Type", "application/json")
            .body("{nonsense");
        let request = if header.is_empty() {
            request
        } else {
            request.header("Authorization", header)
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 401, "{header}");
        assert_eq!(
            response.headers()["www-authenticate"],
            "Basic Realm=\"Janitor\""
        );
        assert_eq!(response.text().await.unwrap(), "worker login required");
    }
    let broken = client()
        .post(&url)
        .basic_auth("w1", Some("secret1"))
        .header("Content-Type", "application/json")
        .body("{nonsense");
    assert_eq!(send(broken).await.0, 400);
}

#[tokio::test]
async fn quarantined_worker_is_shown_the_reason() {
    let (_home, server) = server().await;
    let ask = async |node: &str| -> (u16, Value) {
        send(
            server
                .public_request("POST", "/runner/active-runs")
                .basic_auth("w1", Some("secret1"))
                .json(&json!({ "node": node })),
        )
        .await
    };
    assert_eq!(ask("n1").await, (503, json!({ "reason": "queue empty" })));
    let pause = json!({ "kind": "worker", "name": "w1/n1", "reason": "disk full" });
    let paused = send(server.request("PUT", "/pauses").json(&pause)).await;
    assert_eq!(paused.0, 200);
    // What is known of the pauses may be half a second old.
    tokio::time::sleep(Duration::from_millis(600)).await;
    let reason = json!({ "reason": "this worker is paused: disk full" });
    assert_eq!(ask("n1").await, (503, reason));
    assert_eq!(ask("n2").await, (503, json!({ "reason": "queue empty" })));
}

#[tokio::test]
async fn refused_client_that_asks_again_at_once_is_delayed() {
    let (_home, server) =
        server_with("[workers]\nrefusal_delay_milliseconds = 700\nmax_delayed_refusals = 2\n")
            .await;
    let refused = async |password: &str| {
        let asked = Instant::now();
        let request = server
            .public_request("POST", "/runner/active-runs")
            .basic_auth("w1", Some(password))
            .json(&json!({}));
        assert_eq!(send(request).await.0, 401);
        asked.elapsed()
    };
    let delay = Duration::from_millis(700);
    assert!(refused("wrong").await < delay);
    assert!(refused("wrong").await >= delay);
    assert!(
        refused("other").await >= delay,
        "who guesses has another login each time"
    );
    // Beyond the limit, responses are sent at once.
    let all = futures::future::join_all((0..5).map(|_| refused("wrong"))).await;
    let delayed = all.iter().filter(|elapsed| **elapsed >= delay).count();
    assert_eq!(delayed, 2, "{all:?}");
}
