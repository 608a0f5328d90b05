//! Labels of metrics that clients choose.

use crate::support::process::Server;
use serde_json::json;

#[tokio::test]
async fn invented_methods_and_names_leave_no_series() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", "").await;
    server.add_worker("w1", "secret1").await;
    let figures = async || server.get("/metrics").await.1.as_str().unwrap().len();
    let mut responses = 0;
    for base in [&server.public, &server.admin] {
        let client = crate::support::process::client();
        for number in 0..300 {
            let method = format!("M{number}{}", "X".repeat(60_000));
            let path = format!("{base}/{number}/{}", "p".repeat(2000));
            let request = client.request(method.parse().unwrap(), path);
            // Whether a method of that length is refused without a response is not the question.
            responses += usize::from(request.send().await.is_ok());
        }
    }
    assert!(responses > 0);
    let metrics = server.get("/metrics").await.1;
    assert!(metrics.as_str().unwrap().contains("method=\"other\""));
    let (memory, size) = (server.memory() >> 20, figures().await);
    assert!(memory < 100, "{memory} MiB");
    assert!(size < 200_000, "{size} bytes of metrics");
}

#[tokio::test]
async fn invented_codes_share_a_series() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", "").await;
    server.add_worker("w1", "secret1").await;
    let candidates: Vec<_> = (0..1200)
        .map(|n| json!({ "codebase": format!("c{n}"), "campaign": "gen" }))
        .collect();
    let codebases: Vec<_> = (0..1200)
        .map(|n| json!({ "name": format!("c{n}") }))
        .collect();
    assert_eq!(server.post("/codebases", &json!(codebases)).await.0, 200);
    assert_eq!(server.post("/candidates", &json!(candidates)).await.0, 200);
    for number in 0..1200 {
        let claim = json!({ "worker": "w1" });
        let (status, taken) = server.post("/active-runs", &claim).await;
        assert_eq!(status, 201, "{taken}");
        let report = json!({ "code": format!("code-{number}") });
        let id = taken["id"].as_str().unwrap();
        let finished = server.finish(id, &report, &[]).await;
        assert_eq!(finished.1["result"]["code"], report["code"], "{finished:?}");
    }
    let metrics = server.get("/metrics").await.1;
    let metrics = metrics.as_str().unwrap();
    let series = |name: &str| {
        metrics
            .lines()
            .filter(|line| line.starts_with(name))
            .count()
    };
    let found: Vec<_> = metrics
        .lines()
        .filter(|line| line.contains("result_code"))
        .take(3)
        .collect();
    assert_eq!(series("result_total{"), 1001, "{found:?}");
    assert!(metrics.contains("result_code=\"other\"} 200"), "{metrics}");
}
