//! Runs from assignment to result, over HTTP.

use super::server;
use crate::support::process::{answer, upload};
use serde_json::json;

#[tokio::test]
async fn finishing_again_answers_what_was_stored() {
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
    assert_eq!((first.0, again.0), (201, 200));
    assert_eq!(first.1, again.1);
    assert_eq!(
        server.get(&format!("/log/{id}/w.log")).await.1,
        json!("one")
    );
    let named = answer(
        server
            .request("POST", &format!("/active-runs/{id}/finish-multipart"))
            .multipart(upload(&json!({}), &[])),
    )
    .await;
    assert_eq!(named, (200, first.1));
}

#[tokio::test]
async fn many_finishes_at_once_store_one() {
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
    let answers = futures::future::join_all(reports.iter().map(|(report, log)| {
        let (server, id) = (&server, &id);
        async move { server.finish(id, report, &[("w.log", log)]).await }
    }))
    .await;
    assert_eq!(
        answers.iter().filter(|(status, _)| *status == 201).count(),
        1,
        "{answers:?}"
    );
    assert!(
        answers
            .iter()
            .all(|(status, body)| (*status == 200 || *status == 201) && body == &answers[0].1)
    );
    let code = answers[0].1["result"]["code"].as_str().unwrap().to_owned();
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
async fn only_the_holder_finishes_and_reads_on_the_public_api() {
    let (_home, server) = server().await;
    server.queue("own-a", "gen").await;
    let http = crate::support::process::client();
    let url = format!("{}/runner/active-runs", server.public);
    let (status, taken) = answer(
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
        answer(request.multipart(upload(&json!({ "code": "success" }), &[])))
    };
    assert_eq!(
        answer(http.get(&run).basic_auth("w2", Some("secret2")))
            .await
            .0,
        403
    );
    assert_eq!(finish("w2", "secret2").await.0, 403);
    assert_eq!(
        answer(http.get(&run).basic_auth("w1", Some("secret1")))
            .await
            .1["worker"],
        "w1"
    );
    assert_eq!(finish("w1", "secret1").await.0, 201);
    assert_eq!(finish("w2", "secret2").await.0, 403);
    assert_eq!(finish("w1", "secret1").await.0, 200);
}

#[tokio::test]
async fn logs_and_artifacts_are_kept() {
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
    assert_eq!(
        (status, &finished["artifacts"], &finished["logs"]),
        (201, &json!(["out.tar", "tiny"]), &json!(["w.log"]))
    );
    assert_eq!(finished["filenames"], json!(["w.log", "out.tar", "tiny"]));
    let folder = home.path().join("artifacts").join(&id);
    assert_eq!(
        (
            std::fs::read(folder.join("out.tar")).unwrap(),
            std::fs::read(folder.join("tiny")).unwrap()
        ),
        (large.clone(), b"t".to_vec())
    );
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
    assert_eq!(
        (&full["worker"], &full["code"], &full["command"]),
        (&json!("w1"), &json!("success"), &json!("true"))
    );
}

#[tokio::test]
async fn a_newer_worker_gets_no_nulls_it_cannot_read_and_needs_no_code() {
    let (_home, server) = server().await;
    server.queue("new-a", "gen").await;
    let (_, taken) = server
        .post("/active-runs", &json!({ "node": "w1", "archs": ["amd64"], "backchannel": null, "worker_link": null, "codebase": "new-a" }))
        .await;
    assert_eq!(
        (&taken["branch"]["vcs_type"], &taken["branch"]["subpath"]),
        (&json!("git"), &json!(""))
    );
    assert_eq!(taken["target_repository"]["vcs_type"], "git");
    let report = json!({
        "revision": "r", "start_time": "2026-01-02T03:04:05.5Z", "finish_time": "2026-01-02T03:05:05.5Z", "branches": [], "tags": [],
        "remotes": { "origin": { "url": "u" } }, "stage": "a/b", "target": { "name": "generic", "details": null }
    });
    let (_, finished) = server
        .finish(taken["id"].as_str().unwrap(), &report, &[])
        .await;
    assert_eq!(
        (&finished["result"]["code"], &finished["result"]["duration"]),
        (&json!("success"), &json!(60.0))
    );
    assert_eq!(
        finished["result"]["start_time"],
        "2026-01-02T03:04:05.500000"
    );
}

#[tokio::test]
async fn what_cannot_be_handed_out_ends_and_the_next_is_tried() {
    let (_home, server) = server().await;
    server.queue("bad-dist", "baddist").await;
    server.queue("no-vcs", "strict").await;
    server
        .post(
            "/schedule-control",
            &json!({ "codebase": "no-vcs", "main_branch_revision": "r" }),
        )
        .await;
    server.queue("fine-one", "gen").await;
    let (status, taken) = server
        .post("/active-runs", &json!({ "worker": "w1" }))
        .await;
    assert_eq!((status, &taken["codebase"]), (201, &json!("fine-one")));
    // What comes after it ends too, although each of them is queued again at once.
    assert_eq!(
        server
            .post(
                "/active-runs",
                &json!({ "worker": "w1", "campaign": "strict" })
            )
            .await,
        (503, json!({ "reason": "queue empty" }))
    );
    let (_, runs) = server.get("/runs").await;
    let mut ended: Vec<_> = runs
        .as_array()
        .unwrap()
        .iter()
        .map(|run| {
            (
                run["codebase"].as_str().unwrap(),
                run["code"].as_str().unwrap(),
            )
        })
        .collect();
    ended.sort_unstable();
    assert_eq!(
        ended,
        [
            ("bad-dist", "unsupported-build-target"),
            ("no-vcs", "not-in-vcs"),
            ("no-vcs", "unknown-campaign")
        ]
    );
}

#[tokio::test]
async fn peeking_claims_nothing() {
    let (_home, server) = server().await;
    server.queue("peek-a", "gen").await;
    let (status, peeked) = server.get("/active-runs/+peek").await;
    assert_eq!((status, &peeked["codebase"]), (201, &json!("peek-a")));
    assert_eq!(server.get("/active-runs").await.1, json!([]));
    server.take("peek-a").await;
    assert_eq!(
        server.get("/active-runs/+peek").await,
        (503, json!({ "reason": "queue empty" }))
    );
}

#[tokio::test]
async fn a_run_is_scheduled_again_after_it_ends() {
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
async fn an_approved_run_needs_a_revision() {
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

#[tokio::test]
async fn a_codebase_that_moves_is_scheduled_again() {
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
