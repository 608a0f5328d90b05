//! Finishing a run.

use super::server;
use crate::support::process::{send, upload};
use serde_json::json;

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
