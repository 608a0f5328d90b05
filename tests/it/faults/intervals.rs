//! No hot loop: what ends alike again and again, or cannot be assigned, is not run all the time.

use crate::support::{
    for_each_store,
    process::{Server, send},
    worker_harness::store,
};
use serde_json::{Value, json};

/// A campaign that needs a branch, and one that does not.
const SETTINGS: &str = r#"
[[campaign]]
name = "gen"
command = "true"
default_empty = true
generic_build = {}
[[campaign]]
name = "needs-branch"
command = "true"
generic_build = {}
"#;

for_each_store!(
    nothing_is_run_all_the_time,
    what_cannot_be_assigned_is_one_run_an_hour,
);

async fn ask(server: &Server) -> (u16, Value) {
    server
        .post("/active-runs", &json!({ "worker": "w1" }))
        .await
}

async fn run_count(server: &Server) -> usize {
    let runs = server.get("/runs?limit=1000").await.1;
    runs.as_array().unwrap().len()
}

/// Asks and finishes until nothing is assigned any more.
async fn work(server: &Server, code: &str) -> usize {
    let mut finished = 0;
    // Follow-ups are scheduled within a moment.
    let mut in_vain = 0;
    while in_vain < 8 && finished < 50 {
        let (status, assignment) = ask(server).await;
        if status == 201 {
            let id = assignment["id"].as_str().unwrap();
            let done = server.finish(id, &json!({ "code": code }), &[]).await;
            assert_eq!(done.0, 201, "{done:?}");
            (finished, in_vain) = (finished + 1, 0);
        } else {
            assert_eq!(status, 503, "{assignment}");
            in_vain += 1;
            tokio::time::sleep(std::time::Duration::from_millis(150)).await;
        }
    }
    finished
}

async fn nothing_is_run_all_the_time(kind: &str) {
    let home = tempfile::tempdir().unwrap();
    let (home, store) = (home.path(), &store(kind, home.path()).await);
    let server = Server::start(home, store, SETTINGS).await;
    server.add_worker("w1", "secret1").await;
    server.queue("aa", "gen").await;
    assert_eq!(work(&server, "nothing-to-do").await, 2);
    let queue = server.get("/queue").await.1;
    let id = &queue[0]["queue_id"];
    let explained = server.get(&format!("/queue/{id}/explain")).await.1;
    assert!(
        explained
            .to_string()
            .contains("its last 2 runs ended alike"),
        "{explained}"
    );
    // Whoever asks for a run gets it at once, an upload included.
    let schedule = json!({ "codebase": "aa", "campaign": "gen" });
    let scheduled = server.post("/schedule", &schedule).await;
    assert!(scheduled.0 < 300, "{scheduled:?}");
    assert_eq!(work(&server, "nothing-to-do").await, 1);
    let candidates = json!([{ "codebase": "aa", "campaign": "gen" }]);
    assert_eq!(server.post("/candidates", &candidates).await.0, 200);
    assert_eq!(
        work(&server, "failed").await,
        2,
        "it ends in another way now"
    );
    assert_eq!(run_count(&server).await, 5);
}

async fn what_cannot_be_assigned_is_one_run_an_hour(kind: &str) {
    let home = tempfile::tempdir().unwrap();
    let (home, store) = (home.path(), &store(kind, home.path()).await);
    let server = Server::start(home, store, SETTINGS).await;
    server.add_worker("w1", "secret1").await;
    server.queue("aa", "needs-branch").await;
    assert_eq!(work(&server, "success").await, 0);
    assert_eq!(run_count(&server).await, 1, "one not-in-vcs");
    // A change of the codebase is looked at at once.
    let moved = json!([{ "name": "aa", "branch_url": "https://example.com/aa" }]);
    assert_eq!(
        send(server.request("POST", "/codebases").json(&moved))
            .await
            .0,
        200
    );
    assert_eq!(work(&server, "success").await, 2);
}
