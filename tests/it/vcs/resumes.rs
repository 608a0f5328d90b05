//! The endpoints about what runs resumed from.

use crate::support::{for_each_store, process::Server, worker_harness::store};
use serde_json::{Value, json};

/// Finishes a run of a codebase, and returns its id.
async fn finished(server: &Server, codebase: &str) -> String {
    server.queue(codebase, "gen").await;
    let id = server.claim_of(codebase).await;
    let report = json!({ "code": "success", "revision": format!("rev-{id}") });
    let (status, stored) = server.finish(&id, &report, &[]).await;
    assert_eq!(status, 201, "{stored}");
    id
}

async fn questions_about_resuming_are_answered(kind: &str) {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &store(kind, home.path()).await, "").await;
    let id = finished(&server, "aa").await;
    let (status, chain) = server.get(&format!("/resume/chain/{id}")).await;
    assert_eq!(
        (status, &chain),
        (200, &json!({ "run_id": id, "chain": [], "next": null }))
    );
    let (status, below) = server.get(&format!("/resume/descendants/{id}")).await;
    assert_eq!(
        (status, &below),
        (
            200,
            &json!({ "run_id": id, "descendants": [], "next": null })
        )
    );
    for path in ["/resume/chain/nothing", "/resume/descendants/nothing"] {
        assert_eq!(server.get(path).await.0, 404, "{path}");
    }
    let (status, page) = server.get("/resume/validate?limit=1").await;
    assert_eq!(status, 200, "{page}");
    assert_eq!(page["status"], "consistent");
    assert_eq!(page["next"], json!(id));
    let last = server.get(&format!("/resume/validate?cursor={id}")).await.1;
    assert_eq!(last["next"], Value::Null);

    let (status, check) = server
        .post(
            "/resume/check",
            &json!({ "campaign": "gen", "codebase": "aa" }),
        )
        .await;
    assert_eq!(status, 200, "{check}");
    assert_eq!(check["resume_available"], false, "{check}");
    assert!(check["reason"].is_string(), "{check}");
    for (body, expected) in [
        (json!({ "campaign": "gen", "codebase": "nowhere" }), 404),
        (
            json!({ "campaign": "gen", "branch_url": "https://nowhere/" }),
            404,
        ),
        (json!({ "campaign": "nosuch", "codebase": "aa" }), 422),
        (json!({ "campaign": "gen" }), 422),
    ] {
        let (status, response) = server.post("/resume/check", &body).await;
        assert_eq!(status, expected, "{body}: {response}");
    }
}

for_each_store!(questions_about_resuming_are_answered);
