//! The API as clients see it, over a real server on embedded stores: what it answers to good, bad and repeated requests.

mod bad_input;
mod callers;
mod results;
mod watching;
mod workers;

use crate::support::process::Server;
use serde_json::json;
use tempfile::TempDir;

/// A server with the workers w1 and w2; gone with its folder.
pub async fn server() -> (TempDir, Server) {
    server_with("").await
}

pub async fn server_with(settings: &str) -> (TempDir, Server) {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", settings).await;
    server.add_worker("w1", "secret1").await;
    server.add_worker("w2", "secret2").await;
    (home, server)
}

#[tokio::test]
async fn health_tells_of_each_adapter() {
    let (_home, server) = server().await;
    let answer = server
        .request("GET", "/health")
        .header("Accept", "application/json")
        .send()
        .await
        .unwrap();
    let body: serde_json::Value = answer.json().await.unwrap();
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
async fn ready_says_when_a_store_cannot_be_used() {
    let (home, server) = server().await;
    assert_eq!(server.get("/ready").await, (200, json!("ok")));
    std::fs::remove_dir_all(home.path().join("logs")).unwrap();
    std::fs::write(home.path().join("logs"), "in the way").unwrap();
    let (status, text) = server.get("/ready").await;
    assert_eq!(status, 503);
    assert!(text.as_str().unwrap().starts_with("logs: "), "{text}");
    let (status, _) = crate::support::process::answer(
        server
            .request("GET", "/health")
            .header("Accept", "application/json"),
    )
    .await;
    assert_eq!(status, 503);
    assert_eq!(server.get("/health").await.0, 200);
}

#[tokio::test]
async fn every_answer_has_a_request_id() {
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
async fn the_description_covers_every_route_and_its_page_is_there() {
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
    assert!(page.status().is_success() && page.text().await.unwrap().contains("swagger"));
}

#[tokio::test]
async fn figures_have_the_kept_names() {
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

#[tokio::test]
async fn the_queue_is_told_with_and_without_names() {
    let (_home, server) = server().await;
    server.queue("st-a", "gen").await;
    let run = server.take("st-a").await;
    server
        .finish(
            run["id"].as_str().unwrap(),
            &json!({ "revision": "r" }),
            &[],
        )
        .await;
    server.queue("st-b", "gen").await;
    let (_, stats) = server.get("/queue/stats").await;
    assert_eq!(
        (&stats["by_campaign"]["gen"], &stats["active_runs"]),
        (&stats["queue_length"], &json!(0))
    );
    assert_eq!(stats["finished"]["last_hour"]["success"], 1);
    assert!(stats["oldest_wait_seconds"].as_f64().unwrap() >= 0.0);
    let public: serde_json::Value = reqwest::get(format!("{}/queue/stats", server.public))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(
        (
            public["by_campaign"].is_null(),
            public["queue_length"].is_number()
        ),
        (true, true)
    );
    let (_, limited) = server.get("/queue?limit=1").await;
    assert_eq!(limited.as_array().unwrap().len(), 1);
    let (_, place) = server
        .get("/queue/position?codebase=st-b&campaign=gen")
        .await;
    assert!(place["position"].is_u64() && place["wait_time"] == place["cumulative_wait_time"]);
}

#[tokio::test]
async fn many_are_rescheduled_descheduled_and_reset() {
    let (_home, server) = server().await;
    for (codebase, code) in [
        ("bulk-a", "failed"),
        ("bulk-b", "success"),
        ("bulk-c", "broken"),
    ] {
        server.queue(codebase, "gen").await;
        let run = server.take(codebase).await;
        server
            .finish(run["id"].as_str().unwrap(), &json!({ "code": code }), &[])
            .await;
    }
    // The follow-ups come by themselves; none must come between the steps below.
    server.queued_are(&["bulk-a", "bulk-b", "bulk-c"]).await;
    let bulk = |body: serde_json::Value| {
        let server = &server;
        async move { server.post("/schedule-control", &body).await.1 }
    };
    let names = |answer: &serde_json::Value| {
        let mut names: Vec<String> = answer["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["codebase"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let dry = bulk(json!({ "action": "reschedule", "campaign": "gen", "dry_run": true })).await;
    assert_eq!(
        (names(&dry), &dry["affected_count"]),
        (vec!["bulk-a".into(), "bulk-c".into()], &json!(2))
    );
    let one = bulk(json!({ "action": "reschedule", "campaign": "gen", "result_code": "broken", "bucket": "manual" })).await;
    assert_eq!(names(&one), ["bulk-c"]);
    assert_eq!(
        server.get("/queue?limit=1").await.1[0]["codebase"],
        "bulk-c"
    );
    assert_eq!(
        names(
            &bulk(json!({ "action": "deschedule", "campaign": "gen", "codebase": "bulk-c" })).await
        ),
        ["bulk-c"]
    );
    assert_eq!(
        bulk(json!({ "action": "deschedule", "campaign": "gen", "codebase": "bulk-c" })).await["affected_count"],
        0
    );
    assert_eq!(
        bulk(json!({ "action": "dance", "campaign": "gen" })).await["field"],
        "action"
    );
}
