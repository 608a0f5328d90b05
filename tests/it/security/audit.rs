//! Every change through the admin API and the command line is in the audit log, and no secret is.

use crate::support::{
    process::{PROGRAM, Server, send},
    servers,
};
use serde_json::{Value, json};
use std::{
    process::{Command, Stdio},
    time::Duration,
};

/// A server on Postgres in a database of its own.
async fn on_postgres(home: &std::path::Path, settings: &str) -> Server {
    Server::start(home, &servers::database().await, settings).await
}

async fn request(server: &Server, method: &str, path: &str, body: Value) -> Value {
    let request = server.request(method, path);
    let (status, response) = send(request.json(&body)).await;
    assert!(status < 300, "{method} {path}: {status} {response}");
    response
}

/// Sets, changes and removes a pause, a limit and a worker.
async fn change_settings(server: &Server) {
    let with =
        |field: &str, value: Value| json!({ "kind": "host", "name": "h.example", field: value });
    let scope = "kind=host&name=h.example";
    for (method, path, body) in [
        ("PUT", "/pauses".to_owned(), with("reason", json!("first"))),
        (
            "PUT",
            "/pauses".to_owned(),
            with("reason", json!("token=geheim")),
        ),
        ("DELETE", format!("/pauses?{scope}"), Value::Null),
        ("PUT", "/limits".to_owned(), with("most", json!(1))),
        ("PUT", "/limits".to_owned(), with("most", json!(2))),
        ("DELETE", format!("/limits?{scope}"), Value::Null),
    ] {
        request(server, method, &path, body).await;
    }
    let worker = json!({
        "name": "w9", "password": "geheim", "link": "https://u:geheim@h/?token=geheim",
    });
    request(server, "POST", "/admin/workers", worker).await;
    request(server, "POST", "/admin/workers/w9/rotate", Value::Null).await;
    request(server, "DELETE", "/admin/workers/w9", Value::Null).await;
}

/// Makes one change of each kind to the queue and to a run.
async fn change_runs(server: &Server) {
    server.queue("foo", "gen").await;
    server.queue("bar", "gen").await;
    for (path, body) in [
        ("/schedule", json!({ "codebase": "foo", "campaign": "gen" })),
        (
            "/schedule-control",
            json!({ "codebase": "foo", "main_branch_revision": "r1" }),
        ),
        (
            "/schedule-control",
            json!({ "campaign": "gen", "action": "reschedule" }),
        ),
    ] {
        request(server, "POST", path, body).await;
    }
    let id = server.claim_of("foo").await;
    let kill = server.request("POST", &format!("/kill/{id}"));
    kill.send().await.unwrap();
    let report = json!({ "code": "success", "revision": "r" });
    server.finish(&id, &report, &[]).await;
    let status = json!({ "publish_status": "approved" });
    request(server, "POST", &format!("/runs/{id}"), status).await;
    let candidates = server.get("/candidates").await.1;
    let candidate = candidates.as_array().unwrap().last().unwrap()["id"].clone();
    let path = format!("/candidates/{candidate}");
    request(server, "DELETE", &path, Value::Null).await;
}

const ACTIONS: [&str; 15] = [
    "codebases.upload",
    "candidates.upload",
    "candidate.delete",
    "run.schedule",
    "run.schedule-control",
    "queue.bulk",
    "run.publish-status",
    "run.kill",
    "pause.set",
    "pause.end",
    "limit.set",
    "limit.remove",
    "worker.add",
    "worker.remove",
    "worker.rotate",
];

async fn every_change_is_recorded(server: &Server) {
    change_settings(server).await;
    change_runs(server).await;
    let (status, log) = server.get("/audit?limit=1000").await;
    assert_eq!(status, 200, "{log}");
    assert!(!log.to_string().contains("geheim"), "{log}");
    let entries = log["audit"].as_array().unwrap();
    for action in ACTIONS {
        let found: Vec<_> = entries
            .iter()
            .filter(|entry| entry["action"] == action)
            .collect();
        assert!(!found.is_empty(), "{action} is not in {log:#}");
        for entry in found {
            assert!(
                entry["who"].as_str().is_some_and(|who| !who.is_empty()),
                "{entry}"
            );
            assert_eq!(entry["address"], "127.0.0.1", "{entry}");
            assert!(entry["request_id"].is_string(), "{entry}");
            assert!(entry["at"].is_string(), "{entry}");
        }
    }
    let changed = |action: &str| {
        let entries = entries.iter().filter(|entry| entry["action"] == action);
        entries
            .map(|entry| (entry["before"].clone(), entry["after"].clone()))
            .collect::<Vec<_>>()
    };
    let most = |most: u32| json!({ "most": most });
    assert_eq!(
        changed("limit.set"),
        [(most(1), most(2)), (Value::Null, most(1))]
    );
    assert_eq!(changed("limit.remove"), [(most(2), Value::Null)]);
    assert_eq!(changed("pause.set")[0].0["reason"], "first");
    let status = |status: &str| json!({ "publish_status": status });
    assert_eq!(
        changed("run.publish-status"),
        [(status("unknown"), status("approved"))]
    );
}

#[tokio::test]
async fn every_change_is_recorded_on_sled() {
    let home = tempfile::tempdir().unwrap();
    every_change_is_recorded(&Server::sled(home.path()).await).await;
}

#[tokio::test]
async fn every_change_is_recorded_on_postgres() {
    let home = tempfile::tempdir().unwrap();
    every_change_is_recorded(&on_postgres(home.path(), "").await).await;
}

#[tokio::test]
async fn refused_and_reading_requests_are_not_recorded() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", "").await;
    for (method, path) in [
        ("GET", "/pauses"),
        ("DELETE", "/pauses?kind=all"),
        ("POST", "/admin/workers/nobody/rotate"),
        ("DELETE", "/candidates/7"),
        ("POST", "/kill/nothing"),
    ] {
        server.request(method, path).send().await.unwrap();
    }
    let dry = json!({ "campaign": "gen", "action": "reset", "dry_run": true });
    request(&server, "POST", "/schedule-control", dry).await;
    assert_eq!(server.get("/audit").await.1["audit"], json!([]));
}

#[tokio::test]
async fn entries_survive_a_restart_and_client_that_leaves() {
    let home = tempfile::tempdir().unwrap();
    let mut server = Server::sled(home.path()).await;
    let pause = json!({ "kind": "all", "reason": "x" });
    request(&server, "PUT", "/pauses", pause).await;
    // These clients do not wait for the response, and some leave before the request is looked at.
    let address = server.admin.trim_start_matches("http://").to_owned();
    for number in 0..60 {
        let body = json!({ "kind": "host", "name": format!("h{number}"), "most": 1 }).to_string();
        let text = format!(
            "PUT /limits HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut connection = std::net::TcpStream::connect(&address).unwrap();
        std::io::Write::write_all(&mut connection, text.as_bytes()).unwrap();
        tokio::time::sleep(Duration::from_micros(50 * (number % 30))).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let limits = server.get("/limits").await.1;
    let set = limits["limits"].as_array().unwrap().len();
    let log = server.get("/audit?action=limit.set").await.1;
    assert_eq!(log["audit"].as_array().unwrap().len(), set, "{log}");
    assert!(set > 0);
    server.kill();
    server.run().await;
    let log = server.get("/audit").await.1;
    let entries = log["audit"].as_array().unwrap();
    assert_eq!(entries.len(), set + 1);
    assert_eq!(entries[set]["action"], "pause.set", "{log}");
}

#[tokio::test]
async fn command_line_lists_entries_with_filters() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", "").await;
    server.add_worker("w1", "p").await;
    server.add_worker("w2", "p").await;
    request(&server, "PUT", "/pauses", json!({ "kind": "all" })).await;
    let list = async |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command
            .args(["audit", "ls"])
            .args(arguments)
            .env("JANITOR_SERVER", &server.admin)
            .stdin(Stdio::null());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    let all = list(&[]).await;
    assert!(
        all.contains("worker.add") && all.contains("pause.set"),
        "{all}"
    );
    let found = list(&["--action", "worker.add", "--object", "w2", "--json"]).await;
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["audit"].as_array().map(Vec::len), Some(1), "{found}");
    let found = list(&["--limit", "1", "--json"]).await;
    assert_eq!(
        serde_json::from_str::<Value>(&found).unwrap()["audit"][0]["action"],
        "pause.set"
    );
    assert!(!list(&["--until", "2000-01-01"]).await.contains("w1"));
    assert!(list(&["--action", "nonsense"]).await.contains("is none of"));
}

#[tokio::test]
async fn log_is_trimmed_at_the_start_by_the_settings() {
    let home = tempfile::tempdir().unwrap();
    let mut server = Server::start(
        home.path(),
        &format!("sled:{}", home.path().join("db").display()),
        "[audit]\nentries = 10\n",
    )
    .await;
    for number in 0..30 {
        let pause = json!({ "kind": "host", "name": format!("h{number}") });
        request(&server, "PUT", "/pauses", pause).await;
    }
    server.kill();
    server.run().await;
    server
        .until("/audit", |log| {
            log["audit"].as_array().is_some_and(|log| log.len() == 10)
        })
        .await;
}

#[tokio::test]
async fn migration_is_recorded() {
    let home = tempfile::tempdir().unwrap();
    let url = servers::empty_database().await;
    let mut command = Command::new(PROGRAM);
    command
        .args(["migrate", "--store", &url])
        .current_dir(home.path());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    assert!(output.stderr.is_empty(), "{output:?}");
    let server = Server::start(home.path(), &url, "").await;
    let log = server.get("/audit?action=store.migrate").await.1;
    assert_eq!(log["audit"].as_array().map(Vec::len), Some(1), "{log}");
    assert!(
        log["audit"][0]["after"]
            .to_string()
            .contains("the audit log"),
        "{log}"
    );
}
