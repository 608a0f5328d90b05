//! Finishing a run.

use super::server;
use crate::support::{
    process::{Server, send, upload},
    servers,
};
use serde_json::{Value, json};

#[tokio::test]
async fn finishing_again_returns_the_stored_result() {
    let (_home, server) = server().await;
    server.queue("re-a", "gen").await;
    let id = server.take("re-a").await["id"].as_str().unwrap().to_owned();
    let first = server
        .finish(
            &id,
            &json!({ "code": "success", "revision": "r" }),
            &[("w.log", b"one")],
        )
        .await;
    let again = server
        .finish(
            &id,
            &json!({ "code": "failed" }),
            &[("w.log", b"two"), ("b", b"x")],
        )
        .await;
    assert_eq!(first.0, 201);
    assert_eq!(again.0, 200);
    assert_eq!(first.1, again.1);
    assert_eq!(
        server.get(&format!("/log/{id}/w.log")).await.1,
        json!("one")
    );
    let named = send(
        server
            .request("POST", &format!("/active-runs/{id}/finish-multipart"))
            .multipart(upload(&json!({}), &[])),
    )
    .await;
    assert_eq!(named, (200, first.1));
}

#[tokio::test]
async fn concurrent_finishes_store_one_result() {
    let (_home, server) = server().await;
    server.queue("co-a", "gen").await;
    let id = server.take("co-a").await["id"].as_str().unwrap().to_owned();
    let reports = (0..6)
        .map(|number| {
            (
                json!({ "code": format!("c{number}") }),
                number.to_string().into_bytes(),
            )
        })
        .collect::<Vec<_>>();
    let responses = futures::future::join_all(reports.iter().map(|(report, log)| {
        let (server, id) = (&server, &id);
        async move { server.finish(id, report, &[("w.log", log)]).await }
    }))
    .await;
    assert_eq!(
        responses
            .iter()
            .filter(|(status, _)| *status == 201)
            .count(),
        1,
        "{responses:?}"
    );
    assert!(
        responses
            .iter()
            .all(|(status, body)| (*status == 200 || *status == 201) && body == &responses[0].1)
    );
    let code = responses[0].1["result"]["code"]
        .as_str()
        .unwrap()
        .to_owned();
    let (_, log) = server.get(&format!("/log/{id}/w.log")).await;
    assert_eq!(
        format!(
            "c{}",
            log.as_str().map_or_else(|| log.to_string(), str::to_owned)
        ),
        code
    );
}

#[tokio::test]
async fn public_api_restricts_a_run_to_its_worker() {
    let (_home, server) = server().await;
    server.queue("own-a", "gen").await;
    let http = crate::support::process::client();
    let url = format!("{}/runner/active-runs", server.public);
    let (status, taken) = send(
        http.post(&url)
            .basic_auth("w1", Some("secret1"))
            .json(&json!({ "worker": "w2" })),
    )
    .await;
    assert_eq!(status, 201, "{taken}");
    let run = format!("{url}/{}", taken["id"].as_str().unwrap());
    let finish = |name: &'static str, password: &'static str| {
        let request = http
            .post(format!("{run}/finish"))
            .basic_auth(name, Some(password));
        send(request.multipart(upload(&json!({ "code": "success" }), &[])))
    };
    assert_eq!(
        send(http.get(&run).basic_auth("w2", Some("secret2")))
            .await
            .0,
        403
    );
    assert_eq!(finish("w2", "secret2").await.0, 403);
    assert_eq!(
        send(http.get(&run).basic_auth("w1", Some("secret1")))
            .await
            .1["worker"],
        "w1"
    );
    assert_eq!(finish("w1", "secret1").await.0, 201);
    assert_eq!(finish("w2", "secret2").await.0, 403);
    assert_eq!(finish("w1", "secret1").await.0, 200);
}

#[tokio::test]
async fn newer_worker_gets_no_nulls_and_needs_no_code() {
    let (_home, server) = server().await;
    server.queue("new-a", "gen").await;
    let (_, taken) = server
        .post("/active-runs", &json!({ "node": "w1", "archs": ["amd64"], "backchannel": null, "worker_link": null, "codebase": "new-a" }))
        .await;
    assert_eq!(taken["branch"]["vcs_type"], json!("git"));
    assert_eq!(taken["branch"]["subpath"], json!(""));
    assert_eq!(taken["target_repository"]["vcs_type"], "git");
    let report = json!({
        "revision": "r", "start_time": "2026-01-02T03:04:05.5Z", "finish_time": "2026-01-02T03:05:05.5Z", "branches": [], "tags": [],
        "remotes": { "origin": { "url": "u" } }, "stage": "a/b", "target": { "name": "generic", "details": null }
    });
    let (_, finished) = server
        .finish(taken["id"].as_str().unwrap(), &report, &[])
        .await;
    assert_eq!(finished["result"]["code"], json!("success"));
    assert_eq!(finished["result"]["duration"], json!(60.0));
    assert_eq!(
        finished["result"]["start_time"],
        "2026-01-02T03:04:05.500000"
    );
}

/// Reports with odd clocks: the start and the end that they say.
fn odd_clocks() -> Vec<(Value, Value)> {
    vec![
        (json!("1970-01-01T00:00:00"), json!("2026-01-01T00:00:00")),
        (json!("1970-01-01T00:00:00"), json!("1970-01-01T00:01:00")),
        (json!("2099-01-01T00:00:00"), json!("2099-01-01T00:01:00")),
        (json!("2099-01-01T00:00:00"), json!("1970-01-01T00:00:00")),
        (json!("0001-01-01T00:00:00Z"), json!("9999-12-31T23:59:59Z")),
        (json!(0), json!("Thu Nov 26 10:00:00 UTC 2020")),
        (Value::Null, Value::Null),
        (json!("noon"), json!([])),
    ]
}

async fn clocks_are_not_believed(store: &str) {
    let home = tempfile::tempdir().unwrap();
    let store = store.replace("HOME", home.path().to_str().unwrap());
    let server = Server::start(home.path(), &store, "").await;
    server.add_worker("w1", "secret1").await;
    for (number, (start, finish)) in odd_clocks().into_iter().enumerate() {
        let codebase = format!("clk-{number}");
        server.queue(&codebase, "gen").await;
        let id = server.claim_of(&codebase).await;
        let (_, active) = server.get(&format!("/active-runs/{id}")).await;
        let report = json!({ "code": "failed", "start_time": start, "finish_time": finish });
        let (status, finished) = server.finish(&id, &report, &[]).await;
        assert_eq!(status, 201, "{finished}");
        assert_eq!(finished["result"]["code"], "failed", "{start} {finish}");
        let duration = finished["result"]["duration"].as_f64().unwrap();
        assert!(
            (0.0..60.0).contains(&duration),
            "{start} {finish}: {duration}"
        );
        let (_, full) = server.get(&format!("/runs/{id}?full=1")).await;
        let claimed = active["start_time"].as_str().unwrap();
        let (started, ended) = (&full["start_time"], &full["finish_time"]);
        // Times of this form are in the order of their text.
        assert!(started.as_str().unwrap() >= claimed, "{start}: {full}");
        assert!(ended.as_str() >= started.as_str(), "{finish}: {full}");
        assert!(ended.as_str().unwrap() < "2090", "{finish}: {full}");
        if start.is_string() {
            assert_eq!(full["reported_start_time"], start);
        }
        // The next run is the last effective one, whatever the clock of this one said.
        server.queued_are(&[&codebase]).await;
        let next = server.claim_of(&codebase).await;
        let success = json!({ "code": "success", "revision": "r" });
        assert_eq!(server.finish(&next, &success, &[]).await.0, 201);
        let failed = json!({ "action": "reschedule", "campaign": "gen", "codebase": codebase, "result_code": "failed", "dry_run": true });
        let (status, again) = server.post("/schedule-control", &failed).await;
        assert_eq!(
            (status, &again["affected_count"]),
            (200, &json!(0)),
            "{start}: {again}"
        );
    }
    server
        .post("/codebases", &json!([{ "name": "clk-new" }]))
        .await;
    let candidate = json!([{ "codebase": "clk-new", "campaign": "gen" }]);
    let (_, uploaded) = server.post("/candidates", &candidate).await;
    let estimate = &uploaded["success"][0]["estimated_duration"];
    assert!(
        (0.0..60.0).contains(&estimate.as_f64().unwrap()),
        "{uploaded}"
    );
}

#[tokio::test]
async fn clock_of_a_worker_is_not_believed_in_memory() {
    clocks_are_not_believed("memory:").await;
}

#[tokio::test]
async fn clock_of_a_worker_is_not_believed_on_sled() {
    clocks_are_not_believed("sled:HOME/db").await;
}

#[tokio::test]
async fn clock_of_a_worker_is_not_believed_on_postgres() {
    clocks_are_not_believed(&servers::database().await).await;
}

#[tokio::test]
async fn nearly_right_report_keeps_its_result() {
    let (_home, server) = server().await;
    server.queue("near-a", "gen").await;
    let id = server.claim_of("near-a").await;
    let report = r#"{"code": "success", "revision": "r2", "value": "7.9", "description": "a\ud800b",
        "context": {"applied": 1}, "transient": "perhaps", "tags": ["t1"], "stage": 3,
        "branches": [["main", "gen", "r2"]], "codemod": {}, "start_time": "noon"}"#;
    let part = reqwest::multipart::Part::bytes(report.as_bytes()).file_name("result.json");
    let form = reqwest::multipart::Form::new().part("metadata", part);
    let request = server.request("POST", &format!("/active-runs/{id}/finish"));
    let (status, finished) = send(request.multipart(form)).await;
    assert_eq!(status, 201, "{finished}");
    let result = &finished["result"];
    assert_eq!(result["code"], "success", "{finished}");
    assert_eq!(result["revision"], "r2");
    assert_eq!(result["value"], json!(7));
    assert_eq!(result["description"], "a\u{fffd}b");
    assert_eq!(result["tags"], json!([["t1", "r2"]]));
    assert_eq!(result["branches"], json!([["main", "gen", null, "r2"]]));
    assert_eq!(result["codemod"], Value::Null);
    assert_eq!(result["failure_details"], Value::Null);
    let (_, full) = server.get(&format!("/runs/{id}?full=1")).await;
    assert_eq!(full["context"], r#"{"applied":1}"#);
    let notes = full["report_notes"].to_string();
    for field in ["result.json", "transient", "branches", "start_time"] {
        assert!(notes.contains(field), "{field} in {notes}");
    }
}
