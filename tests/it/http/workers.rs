//! Worker accounts and logins.

use super::server;
use crate::support::process::{client, send};
use serde_json::json;

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
    let (status, finished) = server.finish(&id, &json!({ "code": "success" }), &[]).await;
    assert_eq!(status, 201);
    assert_eq!(finished["result"]["code"], json!("worker-invalid-result"));
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
