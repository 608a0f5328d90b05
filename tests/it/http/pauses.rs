//! Pauses and concurrency limits.

use super::{id_of, server, server_with};
use crate::support::process::{Server, send};
use serde_json::{Value, json};

#[tokio::test]
async fn pauses_and_limits_block_items_until_removed() {
    let (_home, server) = server().await;
    server.queue("rest-a", "gen").await;
    let item = server.get("/queue").await.1[0]["queue_id"]
        .as_i64()
        .unwrap();
    let path = format!("/queue/{item}/explain");
    let explain = || server.get(&path);
    let (_, free) = explain().await;
    assert_eq!(free["can_be_handed_out"], json!(true));
    assert_eq!(free["position"], json!(1));
    assert_eq!(free["blockers"], json!([]));
    assert!(free["score"]["offset"].as_f64().unwrap() > 0.0);
    let pause = json!({ "kind": "campaign", "name": "gen", "reason": "holiday", "until": "2999-01-01T00:00:00" });
    assert_eq!(put(&server, "/pauses", pause).await.0, 200);
    assert_eq!(
        server.get("/pauses").await.1["pauses"][0]["reason"],
        "holiday"
    );
    assert_eq!(
        server
            .post("/active-runs", &json!({ "worker": "w1" }))
            .await
            .0,
        503
    );
    let (_, paused) = explain().await;
    assert_eq!(paused["can_be_handed_out"], json!(false));
    assert_eq!(paused["blockers"][0]["kind"], json!("paused"));
    let limit = json!({ "kind": "campaign", "name": "gen", "most": 0 });
    assert_eq!(put(&server, "/limits", limit).await.0, 200);
    assert_eq!(
        explain().await.1["blockers"][1]["detail"],
        "campaign gen: 0 of 0 run"
    );
    assert_eq!(
        server.get("/limits").await.1["limits"],
        json!([{ "kind": "campaign", "name": "gen", "most": 0, "running": 0 }])
    );
    for (path, status) in [
        ("/pauses?kind=campaign&name=gen", 204),
        ("/pauses?kind=campaign&name=gen", 404),
        ("/limits?kind=campaign&name=gen", 204),
        ("/pauses?kind=moon", 422),
    ] {
        assert_eq!(
            send(server.request("DELETE", path)).await.0,
            status,
            "{path}"
        );
    }
    server.take("rest-a").await;
    assert_eq!(explain().await.1["blockers"][0]["kind"], "held");
    assert_eq!(server.get("/queue/99999/explain").await.0, 404);
}

async fn put(server: &Server, path: &str, body: Value) -> (u16, Value) {
    send(server.request("PUT", path).json(&body)).await
}

#[tokio::test]
async fn invalid_pauses_and_limits_are_rejected_with_the_field() {
    let (_home, server) = server().await;
    for (body, field) in [
        (json!({ "kind": "moon" }), "kind"),
        (json!({ "kind": "campaign" }), "name"),
        (
            json!({ "kind": "campaign", "name": "gen", "until": "2001-01-01T00:00:00" }),
            "until",
        ),
        (
            json!({ "kind": "campaign", "name": "gen", "until": "soon" }),
            "until",
        ),
    ] {
        let (status, problem) = put(&server, "/pauses", body).await;
        assert_eq!(status, 422, "{problem}");
        assert_eq!(problem["field"], json!(field), "{problem}");
    }
    let limit = json!({ "kind": "worker", "name": "w1", "most": 0 });
    assert_eq!(put(&server, "/limits", limit).await.1["field"], "kind");
}

#[tokio::test]
async fn quarantined_worker_is_listed_and_can_be_unpaused() {
    let (_home, server) =
        server_with("[intervals]\nfirst_minutes = 0\n[workers]\nquarantine_after = 2\nquarantine_codes = [\"worker-*\"]\n").await;
    server.queue("sick-a", "gen").await;
    for _ in 0..2 {
        let id = id_of(&server.take("sick-a").await);
        server
            .finish(&id, &json!({ "code": "worker-failure" }), &[])
            .await;
        server.queued_are(&["sick-a"]).await;
    }
    let (_, workers) = server.get("/admin/workers").await;
    assert_eq!(workers["workers"][0]["failures"], json!(2));
    assert_eq!(workers["workers"][0]["paused"]["kind"], json!("worker"));
    assert_eq!(
        server
            .post("/active-runs", &json!({ "worker": "w1" }))
            .await
            .0,
        503
    );
    assert_eq!(
        send(server.request("DELETE", "/pauses?kind=worker&name=w1"))
            .await
            .0,
        204
    );
    server.take("sick-a").await;
}
