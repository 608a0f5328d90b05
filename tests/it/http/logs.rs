//! Reading logs and artifacts of active and finished runs.

use super::{id_of, server};
use crate::support::fake_backchannel::FakeWorker;
use serde_json::json;

#[tokio::test]
async fn worker_logs_are_served_through_the_backchannel() {
    let (_home, server) = server().await;
    let fake = FakeWorker::start().await;
    fake.respond_with("/logs", 200, r#"["w.log"]"#);
    fake.respond_with("/logs/w.log", 200, "from the worker");
    fake.serve_progressive("/job/logText/progressiveText", "from Jenkins");
    for (codebase, kind, url, name, text) in [
        ("shown-a", "http", fake.url(), "w.log", "from the worker"),
        (
            "shown-b",
            "jenkins",
            format!("{}job/", fake.url()),
            "worker.log",
            "from Jenkins",
        ),
    ] {
        server.queue(codebase, "gen").await;
        let body = json!({ "worker": "w1", "codebase": codebase, "backchannel": { "kind": kind, "url": url } });
        let id = id_of(&server.post("/active-runs", &body).await.1);
        assert_eq!(
            server.get(&format!("/log/{id}")).await,
            (200, json!([name]))
        );
        assert_eq!(
            server.get(&format!("/log/{id}/{name}")).await,
            (200, json!(text))
        );
        assert_eq!(
            server.get(&format!("/log/{id}/{name}?offset=5")).await.1,
            text[5..]
        );
        assert_eq!(
            server.get(&format!("/log/{id}/other.log")).await,
            (404, json!("No such log file"))
        );
    }
    let refusing = json!({ "worker": "w1", "codebase": "shown-c", "backchannel": { "kind": "http", "url": "http://127.0.0.1:1/" } });
    server.queue("shown-c", "gen").await;
    let id = id_of(&server.post("/active-runs", &refusing).await.1);
    for path in [format!("/log/{id}"), format!("/log/{id}/w.log")] {
        let response = server.request("GET", &path).send().await.unwrap();
        assert_eq!(response.status(), 504, "{path}");
        let kind = response.headers()["content-type"].to_str().unwrap();
        assert!(kind.starts_with("text/plain"), "{path}: {kind}");
        // A page that takes any body for a list of names must fail to parse this one.
        let body = response.text().await.unwrap();
        assert!(serde_json::from_str::<serde_json::Value>(&body).is_err());
    }
}

#[tokio::test]
async fn worker_without_a_log_list_shows_its_live_logs() {
    let (_home, server) = server().await;
    let fake = FakeWorker::start().await;
    server.queue("shown-d", "gen").await;
    let body = json!({ "worker": "w1", "codebase": "shown-d", "lease": true,
        "backchannel": { "kind": "http", "url": fake.url() } });
    let id = id_of(&server.post("/active-runs", &body).await.1);
    let log = format!("/log/{id}");
    assert_eq!(server.get(&log).await, (200, json!([])));
    let sent = server
        .request("PATCH", &format!("/active-runs/{id}/logs/live.log"))
        .header("Content-Range", "bytes 0-0/*")
        .body("x");
    assert_eq!(sent.send().await.unwrap().status(), 202);
    assert_eq!(server.get(&log).await, (200, json!(["live.log"])));
    fake.respond_with("/logs/", 200, r#"["w.log"]"#);
    assert_eq!(server.get(&log).await, (200, json!(["live.log", "w.log"])));
}

#[tokio::test]
async fn finished_run_serves_its_logs_and_artifacts() {
    let (home, server) = server().await;
    server.queue("art-a", "gen").await;
    let id = server.take("art-a").await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(server.get(&format!("/log/{id}")).await.0, 501);
    assert_eq!(server.get(&format!("/log/{id}/w.log")).await.0, 501);
    let large = vec![b'z'; 300_000];
    let report = json!({ "revision": "r", "target": { "name": "generic", "details": {} } });
    let (status, finished) = server
        .finish(
            &id,
            &report,
            &[("w.log", &large), ("out.tar", &large), ("tiny", b"t")],
        )
        .await;
    assert_eq!(status, 201);
    assert_eq!(finished["artifacts"], json!(["out.tar", "tiny"]));
    assert_eq!(finished["logs"], json!(["w.log"]));
    assert_eq!(finished["filenames"], json!(["w.log", "out.tar", "tiny"]));
    let folder = home.path().join("artifacts").join(&id);
    assert_eq!(
        std::fs::read(folder.join("out.tar")).unwrap(),
        large.clone()
    );
    assert_eq!(std::fs::read(folder.join("tiny")).unwrap(), b"t".to_vec());
    assert!(
        home.path()
            .join("logs/art-a")
            .join(&id)
            .join("w.log.gz")
            .exists()
    );
    assert_eq!(server.get(&format!("/log/{id}")).await.1, json!(["w.log"]));
    assert_eq!(
        server
            .get(&format!("/log/{id}/w.log"))
            .await
            .1
            .as_str()
            .unwrap()
            .len(),
        large.len()
    );
    assert_eq!(server.get(&format!("/log/{id}/none.log")).await.0, 404);
    let (_, full) = server.get(&format!("/runs/{id}?full=1")).await;
    assert_eq!(full["worker"], json!("w1"));
    assert_eq!(full["code"], json!("success"));
    assert_eq!(full["command"], json!("true"));
}
