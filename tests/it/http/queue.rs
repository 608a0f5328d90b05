//! `/queue` and `/schedule-control`.

use super::server;
use serde_json::json;

#[tokio::test]
async fn public_queue_stats_omit_names() {
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
    assert_eq!(stats["by_campaign"]["gen"], stats["queue_length"]);
    assert_eq!(stats["active_runs"], json!(0));
    assert_eq!(stats["finished"]["last_hour"]["success"], 1);
    assert!(stats["oldest_wait_seconds"].as_f64().unwrap() >= 0.0);
    let public: serde_json::Value = reqwest::get(format!("{}/queue/stats", server.public))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(public["by_campaign"].is_null());
    assert!(public["queue_length"].is_number());
    let (_, limited) = server.get("/queue?limit=1").await;
    assert_eq!(limited.as_array().unwrap().len(), 1);
    let (_, position) = server
        .get("/queue/position?codebase=st-b&campaign=gen")
        .await;
    assert!(position["position"].is_u64());
    assert_eq!(position["wait_time"], position["cumulative_wait_time"]);
}

#[tokio::test]
async fn schedule_control_reschedules_and_deschedules_in_bulk() {
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
    // Follow-ups are processed in the background; none must interfere with the steps below.
    server.queued_are(&["bulk-a", "bulk-b", "bulk-c"]).await;
    let bulk = |body: serde_json::Value| {
        let server = &server;
        async move { server.post("/schedule-control", &body).await.1 }
    };
    let names = |response: &serde_json::Value| {
        let mut names: Vec<String> = response["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["codebase"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    let dry = bulk(json!({ "action": "reschedule", "campaign": "gen", "dry_run": true })).await;
    assert_eq!(names(&dry), ["bulk-a", "bulk-c"]);
    assert_eq!(dry["affected_count"], json!(2));
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
