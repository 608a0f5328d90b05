//! Health, readiness, request ids, the API description and metrics.

use super::server;
use serde_json::json;

#[tokio::test]
async fn health_reports_each_adapter() {
    let (_home, server) = server().await;
    let response = server
        .request("GET", "/health")
        .header("Accept", "application/json")
        .send()
        .await
        .unwrap();
    let body: serde_json::Value = response.json().await.unwrap();
    assert_eq!(body["status"], "ok");
    for adapter in ["store", "artifacts", "logs", "events"] {
        assert_eq!(
            body["checks"][adapter],
            json!({ "status": "ok", "message": null }),
            "{adapter}"
        );
    }
}

#[tokio::test]
async fn ready_fails_if_a_store_is_unusable() {
    let (home, server) = server().await;
    assert_eq!(server.get("/ready").await, (200, json!("ok")));
    std::fs::remove_dir_all(home.path().join("logs")).unwrap();
    std::fs::write(home.path().join("logs"), "in the way").unwrap();
    let (status, text) = server.get("/ready").await;
    assert_eq!(status, 503);
    assert!(text.as_str().unwrap().starts_with("logs: "), "{text}");
    let (status, _) = crate::support::process::send(
        server
            .request("GET", "/health")
            .header("Accept", "application/json"),
    )
    .await;
    assert_eq!(status, 503);
    assert_eq!(server.get("/health").await.0, 200);
}

#[tokio::test]
async fn every_response_has_a_request_id() {
    let (_home, server) = server().await;
    let given = server
        .request("GET", "/health")
        .header("x-request-id", "mine")
        .send()
        .await
        .unwrap();
    assert_eq!(given.headers()["x-request-id"], "mine");
    let made = server.request("GET", "/nothing-here").send().await.unwrap();
    assert_eq!(made.headers()["x-request-id"].len(), 36);
    assert_eq!(made.headers()["content-type"], "application/problem+json");
}

#[tokio::test]
async fn openapi_describes_every_route_and_docs_are_served() {
    let (_home, server) = server().await;
    let (_, description) = server.get("/openapi.json").await;
    for (path, method) in [
        ("/health", "get"),
        ("/status", "get"),
        ("/queue", "get"),
        ("/queue/stats", "get"),
        ("/schedule", "post"),
        ("/codebases", "post"),
        ("/candidates/{id}", "delete"),
        ("/runs/{run_id}", "post"),
        ("/log/{run_id}/{name}", "get"),
        ("/kill/{run_id}", "post"),
        ("/active-runs/{run_id}/finish", "post"),
        ("/runner/active-runs", "post"),
        ("/admin/workers/{name}/rotate", "post"),
    ] {
        assert!(
            description["paths"][path][method].is_object(),
            "{method} {path}"
        );
    }
    let page = server.request("GET", "/docs/").send().await.unwrap();
    assert!(page.status().is_success());
    assert!(page.text().await.unwrap().contains("swagger"));
}

#[tokio::test]
async fn metrics_keep_their_names() {
    let (_home, server) = server().await;
    server.queue("fig-a", "gen").await;
    let run = server.take("fig-a").await;
    let (_, figures) = server.get("/metrics").await;
    let figures = figures.as_str().unwrap();
    for line in [
        "active_runs{worker=\"w1\"} 1",
        "assignments_total{worker=\"w1\"} 1",
        "janitor_runner_queue_size{bucket=\"default\"} 1",
        "janitor_runner_http_requests_total{method=\"POST\",route=\"/candidates\",status=\"200\"} 1",
    ] {
        assert!(figures.contains(line), "{line} in\n{figures}");
    }
    server
        .finish(
            run["id"].as_str().unwrap(),
            &json!({ "code": "failed" }),
            &[("w.log", b"x")],
        )
        .await;
    let (_, figures) = server.get("/metrics").await;
    for line in [
        "run_count_total 1",
        "result_total{campaign=\"gen\",result_code=\"failed\"} 1",
        "logfile_uploads_total 1",
        "janitor_runner_store_operations_total{store=\"memory\",operation=\"store a run\",status=\"ok\"} 1",
    ] {
        assert!(
            figures.as_str().unwrap().contains(line),
            "{line} in\n{figures}"
        );
    }
}
