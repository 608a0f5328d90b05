//! Codebases and candidates.

use super::server;
use serde_json::json;

#[tokio::test]
async fn moved_codebase_is_scheduled_again() {
    let (_home, server) = server().await;
    server.queue("mov-a", "gen").await;
    server.get("/queue").await;
    let (_, stats) = server
        .post(
            "/schedule-control",
            &json!({ "action": "deschedule", "campaign": "gen" }),
        )
        .await;
    assert_eq!(stats["affected_count"], 1);
    server
        .post(
            "/codebases",
            &json!([{ "name": "mov-a", "url": "https://example.com/moved" }]),
        )
        .await;
    assert_eq!(server.get("/queue").await.1[0]["codebase"], "mov-a");
}

#[tokio::test]
async fn invalid_candidate_does_not_affect_the_others() {
    let (_home, server) = server().await;
    server.queue("spoil-a", "gen").await;
    let run = server.take("spoil-a").await["id"].clone();
    server
        .finish(run.as_str().unwrap(), &json!({ "revision": "r" }), &[])
        .await;
    let list = json!([
        { "codebase": "spoil-a", "campaign": "gen", "followup_for": ["nosuch"] },
        { "codebase": "nowhere", "campaign": "gen" },
        { "codebase": "spoil-a", "campaign": "genchroot", "value": 0 },
        { "codebase": "spoil-a", "campaign": "nocmd" },
        { "codebase": "spoil-a", "campaign": "nosuch" },
        { "codebase": "spoil-a", "campaign": "gen", "publish-policy": "nosuch" },
        { "codebase": "spoil-a", "campaign": "strict", "followup_for": [run] },
    ]);
    let (status, uploaded) = server.post("/candidates", &list).await;
    assert_eq!(status, 200);
    assert_eq!(uploaded["success"].as_array().unwrap().len(), 1);
    assert_eq!(uploaded["success"][0]["campaign"], json!("strict"));
    for kind in [
        "unknown_runs",
        "unknown_codebases",
        "invalid_value",
        "invalid_command",
        "unknown_campaigns",
        "unknown_publish_policies",
    ] {
        assert_eq!(
            uploaded[kind].as_array().map(Vec::len),
            Some(1),
            "{kind}: {uploaded}"
        );
    }
}
