//! Who may call what: the same handlers serve operators on the admin listener and workers on the
//! public one.

use super::server;
use crate::support::process::{Server, upload};
use serde_json::json;

/// The routes of workers that name a run, without the prefix of the public listener.
fn routes_of_a_run(id: &str) -> [(&'static str, String); 5] {
    [
        ("GET", format!("/active-runs/{id}")),
        ("POST", format!("/active-runs/{id}/finish")),
        ("POST", format!("/active-runs/{id}/finish-multipart")),
        ("POST", format!("/active-runs/{id}/keepalive")),
        ("PATCH", format!("/active-runs/{id}/logs/w.log")),
    ]
}

async fn status(request: reqwest::RequestBuilder) -> u16 {
    request.send().await.unwrap().status().as_u16()
}

/// A request of a worker with all that any of the routes reads.
fn by_worker(server: &Server, method: &str, path: &str) -> reqwest::RequestBuilder {
    let request = server.public_request(method, &format!("/runner{path}"));
    if path.contains("/logs/") {
        request.header("Content-Range", "bytes 0-0/*").body("x")
    } else {
        request.multipart(upload(&json!({ "code": "success" }), &[]))
    }
}

#[tokio::test]
async fn every_worker_route_requires_a_login() {
    let (_home, server) = server().await;
    server.queue("caller-a", "gen").await;
    let id = server.claim_of("caller-a").await;
    let assign = [("POST", "/active-runs".to_owned())];
    for (method, path) in routes_of_a_run(&id).into_iter().chain(assign) {
        let request = by_worker(&server, method, &path);
        assert_eq!(status(request).await, 401, "{method} {path}");
    }
    assert_eq!(server.get(&format!("/active-runs/{id}")).await.0, 200);
}

#[tokio::test]
async fn worker_may_not_act_on_a_run_of_another() {
    let (_home, server) = server().await;
    server.queue("caller-b", "gen").await;
    let id = server.claim_of("caller-b").await;
    for (method, path) in routes_of_a_run(&id) {
        let request = by_worker(&server, method, &path).basic_auth("w2", Some("secret2"));
        assert_eq!(status(request).await, 403, "{method} {path}");
    }
    let log = by_worker(&server, "PATCH", &format!("/active-runs/{id}/logs/w.log"));
    assert_eq!(status(log.basic_auth("w1", Some("secret1"))).await, 202);
}

#[tokio::test]
async fn operator_may_act_on_the_run_of_any_worker() {
    let (_home, server) = server().await;
    server.queue("caller-c", "gen").await;
    let id = server.claim_of("caller-c").await;
    let keepalive = server.request("POST", &format!("/active-runs/{id}/keepalive"));
    assert_eq!(status(keepalive).await, 200);
    let finish = server
        .request("POST", &format!("/active-runs/{id}/finish-multipart"))
        .multipart(upload(&json!({ "code": "success" }), &[]));
    assert_eq!(status(finish).await, 201);
}

#[tokio::test]
async fn operator_routes_are_not_public() {
    let (_home, server) = server().await;
    for path in ["/active-runs", "/queue", "/admin/workers", "/runner/queue"] {
        let request = server
            .public_request("GET", path)
            .basic_auth("w1", Some("secret1"));
        assert_eq!(status(request).await, 404, "{path}");
    }
}

#[tokio::test]
async fn location_is_a_path_of_the_same_listener() {
    let (_home, server) = server().await;
    server.queue("caller-d", "gen").await;
    server.queue("caller-e", "gen").await;
    let body = json!({ "worker": "w1" });
    let requests = [
        (server.request("POST", "/active-runs"), "/active-runs/"),
        (
            server
                .public_request("POST", "/runner/active-runs")
                .basic_auth("w1", Some("secret1")),
            "/runner/active-runs/",
        ),
    ];
    for (request, base) in requests {
        let response = request.json(&body).send().await.unwrap();
        let location = response.headers()["location"].to_str().unwrap().to_owned();
        let assignment: serde_json::Value = response.json().await.unwrap();
        let id = assignment["id"].as_str().unwrap();
        assert_eq!(location, format!("{base}{id}"));
    }
}
