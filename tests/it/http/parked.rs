//! Retries, and items that are parked.

use super::{id_of, server_with};
use crate::support::process::send;
use serde_json::json;

#[tokio::test]
async fn transient_failures_are_retried_and_finally_parked() {
    let (_home, server) =
        server_with("[[retry]]\nname = \"flaky\"\ntransient = true\nattempts = 2\ndelay_seconds = 2\njitter = 0\nthen = \"park\"\n").await;
    server.queue("retry-a", "gen").await;
    let flaky = json!({ "code": "flaky", "description": "it rained", "transient": true });
    let first = server.take("retry-a").await;
    server.finish(&id_of(&first), &flaky, &[]).await;
    let item = first["queue_id"].as_i64().unwrap();
    let (_, snoozed) = server.get(&format!("/queue/{item}/explain")).await;
    assert_eq!(snoozed["blockers"][0]["kind"], "snoozed");
    assert_eq!(
        server
            .post("/active-runs", &json!({ "worker": "w1" }))
            .await
            .0,
        503
    );
    // It is due again by the clock, for a client that is waiting.
    let second = send(
        server
            .request("POST", "/active-runs?wait=10")
            .json(&json!({ "worker": "w1" })),
    )
    .await;
    assert_eq!(second.0, 201);
    assert_eq!(second.1["queue_id"], first["queue_id"]);
    server.finish(&id_of(&second.1), &flaky, &[]).await;
    let (_, parked) = server.get("/parked").await;
    assert_eq!(parked["parked"][0]["queue_id"], json!(item));
    assert_eq!(parked["parked"][0]["tries"], json!({ "flaky": 2 }));
    assert_eq!(parked["next"], json!(null));
    assert_eq!(
        parked["parked"][0]["reason"],
        "flaky: 2 runs in a row, the last was flaky (it rained)"
    );
    assert_eq!(server.post("/parked/unpark", &json!({})).await.0, 422);
    assert_eq!(
        server
            .post("/parked/unpark", &json!({ "campaign": "other" }))
            .await
            .1,
        json!({ "unparked": [] })
    );
    assert_eq!(
        server
            .post("/parked/unpark", &json!({ "campaign": "gen" }))
            .await
            .1,
        json!({ "unparked": [item] })
    );
    assert_eq!(server.take("retry-a").await["queue_id"], item);
}
