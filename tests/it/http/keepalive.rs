//! Leases and keepalives.

use super::{SHORT_TIMEOUTS, id_of, leased, server, server_with};
use crate::support::process::send;
use serde_json::json;

#[tokio::test]
async fn keepalive_renews_the_lease() {
    let (_home, server) = server_with(SHORT_TIMEOUTS).await;
    server.queue("lease-a", "gen").await;
    let run = leased(&server, "lease-a").await;
    let (id, until) = (id_of(&run), run["lease_until"].as_str().unwrap().to_owned());
    let (status, kept) = server
        .post(&format!("/active-runs/{id}/keepalive"), &json!(null))
        .await;
    assert_eq!(status, 200);
    assert_eq!(kept["cancel"], json!(null));
    assert!(kept["lease_until"].as_str().unwrap() >= until.as_str());
    assert!(server.get(&format!("/active-runs/{id}")).await.1["lease_until"].is_string());
    let (status, _) = server
        .post("/active-runs/nosuch/keepalive", &json!(null))
        .await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn public_keepalive_is_restricted_to_the_worker_of_the_run() {
    let (_home, server) = server().await;
    server.queue("lease-b", "gen").await;
    let id = id_of(&leased(&server, "lease-b").await);
    for (worker, password, expected) in [
        ("w1", "secret1", 200),
        ("w2", "secret2", 403),
        ("w1", "wrong", 401),
    ] {
        let request = server
            .public_request("POST", &format!("/runner/active-runs/{id}/keepalive"))
            .basic_auth(worker, Some(password));
        assert_eq!(send(request).await.0, expected, "{worker}");
    }
}

#[tokio::test]
async fn result_after_a_lost_lease_is_accepted() {
    let (_home, server) = server_with(SHORT_TIMEOUTS).await;
    server.queue("lease-c", "gen").await;
    let run = leased(&server, "lease-c").await;
    let id = id_of(&run);
    let ended = server
        .until(&format!("/runs/{id}?full=1"), |run| run["code"].is_string())
        .await;
    assert_eq!(ended["code"], json!("worker-timeout"));
    assert_eq!(ended["transient"], json!(true));
    let (status, gone) = server
        .post(&format!("/active-runs/{id}/keepalive"), &json!(null))
        .await;
    assert_eq!(status, 410);
    assert_eq!(gone["run_id"], json!(id));
    assert_eq!(gone["stop"], json!(false));
    // The item is back in its position with its id. The late result is accepted and removes it.
    let (_, queue) = server.get("/queue").await;
    assert_eq!(queue.as_array().unwrap().len(), 1);
    assert_eq!(queue[0]["queue_id"], run["queue_id"]);
    assert_eq!(
        server
            .finish(
                &id,
                &json!({ "revision": "r", "code": "success" }),
                &[("w.log", b"late\n")]
            )
            .await
            .0,
        201
    );
    assert_eq!(
        server.get(&format!("/runs/{id}?full=1")).await.1["code"],
        "success"
    );
    assert_eq!(server.get(&format!("/log/{id}/w.log")).await.1, "late\n");
    assert_eq!(server.finish(&id, &json!({}), &[]).await.0, 200);
    server
        .until("/queue", |queue| {
            queue[0]["queue_id"].as_i64() > run["queue_id"].as_i64()
        })
        .await;
}
