//! Pinging workers without a lease.

use super::{SHORT_TIMEOUTS, id_of, server_with};
use crate::support::fake_backchannel::FakeWorker;
use serde_json::{Value, json};

#[tokio::test]
async fn worker_without_lease_is_pinged_and_reported() {
    let (_home, server) = server_with(SHORT_TIMEOUTS).await;
    server.queue("ping-a", "gen").await;
    let fake = FakeWorker::start().await;
    let backchannel = json!({ "kind": "http", "url": fake.url() });
    let taken = server
        .post(
            "/active-runs",
            &json!({ "worker": "w1", "backchannel": backchannel }),
        )
        .await
        .1;
    let id = id_of(&taken);
    assert!(taken.get("lease_until").is_none());
    fake.respond_with("/log-id", 200, &id);
    let pings = |outcome: &'static str| {
        move |figures: &Value| {
            figures.to_string().contains(&format!(
                "backchannel_pings_total{{kind=\\\"http\\\",outcome=\\\"{outcome}\\\"}}"
            ))
        }
    };
    server.until("/metrics", pings("alive")).await;
    let (status, health) = server.get("/watchdog/health").await;
    assert_eq!(status, 200);
    assert_eq!(health["status"], json!("ok"));
    assert_eq!(health["active_runs"], json!(1));
    assert_eq!(health["runs"][0]["alive"], json!(true));
    fake.respond_with("/log-id", 200, "null");
    server
        .until("/watchdog/health", |health| {
            health["runs"][0]["status"] == "suspect"
        })
        .await;
    let ended = server
        .until(&format!("/runs/{id}?full=1"), |run| run["code"].is_string())
        .await;
    assert_eq!(ended["code"], json!("run-disappeared"));
    assert_eq!(
        ended["description"],
        json!("asked 3 times: the worker is idle")
    );
}
