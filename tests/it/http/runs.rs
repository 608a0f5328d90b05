//! `/runs`, and what follows a run.

use super::server;
use serde_json::json;

#[tokio::test]
async fn finished_run_is_scheduled_again() {
    let (_home, server) = server().await;
    server.queue("fol-a", "gen").await;
    let id = server.take("fol-a").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    server
        .finish(&id, &json!({ "code": "success", "context": "seen" }), &[])
        .await;
    for _ in 0..100 {
        let (_, queue) = server.get("/queue").await;
        if queue[0]["context"] == "seen" {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it was not scheduled again");
}

#[tokio::test]
async fn approval_without_revision_is_rejected() {
    let (_home, server) = server().await;
    server.queue("app-a", "gen").await;
    let id = server.take("app-a").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    server.finish(&id, &json!({ "code": "failed" }), &[]).await;
    assert_eq!(
        server
            .post(
                &format!("/runs/{id}"),
                &json!({ "publish_status": "approved" })
            )
            .await
            .0,
        422
    );
    assert_eq!(
        server
            .post(
                &format!("/runs/{id}"),
                &json!({ "publish_status": "rejected" })
            )
            .await
            .0,
        200
    );
}
