//! Malformed requests: each gets a clear response, never a 500, and changes nothing.

use super::server;
use crate::support::{
    process::{Server, send},
    servers,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A server with the workers w1 and w2 on each kind of store.
async fn servers() -> Vec<(TempDir, Server)> {
    let mut started = vec![];
    for store in ["memory:", "sled:HOME/db", "postgres"] {
        let home = tempfile::tempdir().unwrap();
        let store = match store {
            "postgres" => servers::database().await,
            other => other.replace("HOME", home.path().to_str().unwrap()),
        };
        let server = Server::start(home.path(), &store, "").await;
        server.add_worker("w1", "secret1").await;
        server.add_worker("w2", "secret2").await;
        started.push((home, server));
    }
    started
}

/// Requests with an invalid body: path, body, status, and the field that the response names, if any.
const INVALID_JSON: &[(&str, &str, u16, &str)] = &[
    ("/codebases", "{nonsense", 400, ""),
    ("/codebases", "", 422, ""),
    ("/codebases", "[{\"name\": 5}]", 422, "[0].name"),
    (
        "/codebases",
        "[{\"name\": \"ok-name\"}, {\"name\": \"X\"}]",
        422,
        "[1].name",
    ),
    ("/codebases", "[{}]", 422, "[0].name"),
    (
        "/codebases",
        "[{\"name\": \"ab\", \"value\": 99999999999999999999}]",
        422,
        "[0].value",
    ),
    (
        "/codebases",
        "[{\"name\": \"ab\", \"value\": 9999999999}]",
        422,
        "[0].value",
    ),
    (
        "/codebases",
        "[{\"name\": \"ab\", \"value\": 1e999}]",
        400,
        "",
    ),
    (
        "/codebases",
        "[{\"name\": \"ab\", \"subpath\": \"a\\u0000b\"}]",
        422,
        "[0].subpath",
    ),
    (
        "/codebases",
        "[{\"name\": \"ab\", \"vcs_type\": \"rcs\"}]",
        422,
        "[0].vcs_type",
    ),
    ("/codebases", "[{\"name\": \"ab\"}] trailing", 400, ""),
    ("/codebases", "{\"name\": \"ab\"}", 422, ""),
    (
        "/candidates",
        "[{\"codebase\": \"bad-a\", \"campaign\": \"gen\", \"value\": 1.5}]",
        422,
        "[0].value",
    ),
    (
        "/candidates",
        "[{\"codebase\": \"bad-a\", \"campaign\": \"gen\", \"bucket\": \"pail\"}]",
        422,
        "[0].bucket",
    ),
    (
        "/candidates",
        "[{\"codebase\": \"bad-a\", \"campaign\": \"gen\", \"command\": \"a\\u0000\"}]",
        422,
        "[0].command",
    ),
    (
        "/candidates",
        "[{\"codebase\": \"bad-a\", \"campaign\": \"gen\", \"change_set\": \"\"}]",
        422,
        "[0].change_set",
    ),
    ("/candidates", "[{\"codebase\": \"bad-a\"}]", 400, ""),
    ("/candidates", "[null]", 422, ""),
    ("/schedule", "{}", 422, "codebase"),
    (
        "/schedule",
        "{\"codebase\": \"bad-a\", \"campaign\": \"gen\", \"bucket\": \"pail\"}",
        422,
        "bucket",
    ),
    (
        "/schedule",
        "{\"codebase\": \"bad-a\", \"campaign\": \"gen\", \"offset\": \"soon\"}",
        422,
        "offset",
    ),
    (
        "/schedule",
        "{\"codebase\": \"bad-a\", \"campaign\": \"gen\", \"estimated_duration\": -1}",
        422,
        "estimated_duration",
    ),
    (
        "/schedule",
        "{\"codebase\": \"bad-a\", \"campaign\": \"gen\", \"requester\": \"\\u0000\"}",
        422,
        "requester",
    ),
    (
        "/schedule",
        "{\"codebase\": \"nowhere\", \"campaign\": \"gen\"}",
        404,
        "",
    ),
    (
        "/schedule-control",
        "{\"codebase\": \"bad-a\"}",
        422,
        "main_branch_revision",
    ),
    (
        "/schedule-control",
        "{\"codebase\": \"bad-a\", \"main_branch_revision\": \"a\\u0000\"}",
        422,
        "main_branch_revision",
    ),
    (
        "/codebases",
        "[{\"name\": \"ab\", \"web_url\": \"\\ud800\"}]",
        400,
        "",
    ),
    (
        "/candidates",
        "[{\"codebase\": \"bad-a\", \"campaign\": \"a\\u0000\"}]",
        422,
        "[0].campaign",
    ),
    (
        "/candidates",
        "[{\"codebase\": \"bad-a\", \"campaign\": \"gen\", \"publish-policy\": \"\\u0000\"}]",
        422,
        "[0].publish-policy",
    ),
    (
        "/candidates",
        "[{\"codebase\": \"bad-a\", \"campaign\": \"gen\", \"followup_for\": [\"\\u0000\"]}]",
        422,
        "[0].followup_for[0]",
    ),
    ("/schedule", "{\"run_id\": \"\\u0000\"}", 422, "run_id"),
    (
        "/schedule-control",
        "{\"run_id\": \"\\u0000\", \"main_branch_revision\": \"r\"}",
        422,
        "run_id",
    ),
    (
        "/active-runs",
        "{\"worker\": \"w1\", \"worker_link\": \"\\u0000\"}",
        422,
        "worker_link",
    ),
    (
        "/admin/workers",
        "{\"name\": \"ab\", \"link\": \"\\u0000\"}",
        422,
        "link",
    ),
    (
        "/admin/workers",
        "{\"name\": \"ab\", \"password\": \"\\u0000\"}",
        422,
        "password",
    ),
    ("/active-runs", "[]", 422, ""),
    ("/active-runs", "{\"worker\": \"w\\u0000\"}", 422, "worker"),
    (
        "/active-runs",
        "{\"codebase\": \"NOT A NAME\"}",
        422,
        "codebase",
    ),
    (
        "/active-runs",
        "{\"backchannel\": {\"kind\": \"http\"}}",
        422,
        "backchannel.url",
    ),
    (
        "/active-runs",
        "{\"backchannel\": {\"kind\": \"http\", \"url\": \"file:///etc/passwd\"}}",
        422,
        "backchannel.url",
    ),
    (
        "/active-runs",
        "{\"backchannel\": {\"kind\": \"http\"}}",
        422,
        "backchannel.url",
    ),
    (
        "/runs/nosuch",
        "{\"publish_status\": \"nonsense\"}",
        422,
        "publish_status",
    ),
    ("/runs/nosuch", "{}", 422, "publish_status"),
    ("/admin/workers", "{\"name\": \"a b\"}", 422, "name"),
    (
        "/admin/workers",
        "{\"name\": \"ab\", \"password\": \"\"}",
        422,
        "password",
    ),
    ("/admin/workers", "{\"name\": \"w1\"}", 409, ""),
];

#[tokio::test]
async fn invalid_json_is_rejected_with_the_field() {
    for (_home, server) in servers().await {
        reject_invalid_json(&server).await;
    }
}

async fn reject_invalid_json(server: &Server) {
    server.queue("bad-a", "gen").await;
    let before = (
        server.get("/codebases").await,
        server.get("/candidates").await,
        server.get("/queue").await,
    );
    for (path, body, status, field) in INVALID_JSON {
        let request = server
            .request("POST", path)
            .header("Content-Type", "application/json")
            .body(*body);
        let (actual, response) = send(request).await;
        assert_eq!(actual, *status, "POST {path} {body}: {response}");
        if !field.is_empty() {
            assert!(
                response.to_string().contains(field),
                "POST {path} {body}: {response} does not name {field}"
            );
        }
    }
    let after = (
        server.get("/codebases").await,
        server.get("/candidates").await,
        server.get("/queue").await,
    );
    assert_eq!(before, after);
    assert_eq!(server.get("/active-runs").await.1, json!([]));
}

#[tokio::test]
async fn deeply_nested_json_is_rejected() {
    for (_home, server) in servers().await {
        reject_deep_json(&server).await;
    }
}

async fn reject_deep_json(server: &Server) {
    let deep = "[".repeat(200_000);
    let (status, _) = send(
        server
            .request("POST", "/codebases")
            .header("Content-Type", "application/json")
            .body(deep),
    )
    .await;
    assert!((400..500).contains(&status), "{status}");
    assert_eq!(server.get("/ready").await.0, 200);
}

#[tokio::test]
async fn wrong_methods_types_and_paths_are_rejected() {
    for (_home, server) in servers().await {
        reject_wrong_paths(&server).await;
    }
}

async fn reject_wrong_paths(server: &Server) {
    for (method, path, status) in [
        ("PUT", "/codebases", 405),
        ("DELETE", "/status", 405),
        ("GET", "/nothing", 404),
        ("GET", "/queue?limit=-1", 400),
        ("GET", "/queue?limit=many", 400),
        ("GET", "/queue/position?codebase=ab", 400),
        ("GET", "/queue/position?codebase=%00&campaign=gen", 400),
        ("DELETE", "/candidates/abc", 400),
        ("DELETE", "/candidates/99999999999999999999", 400),
        ("DELETE", "/candidates/7", 404),
        ("GET", "/runs/%ff", 400),
        ("GET", "/log/nosuch/..%2f..%2fetc%2fpasswd", 400),
        ("POST", "/admin/workers/nobody/rotate", 404),
        ("DELETE", "/admin/workers/nobody", 404),
    ] {
        let (actual, response) = send(server.request(method, path)).await;
        assert_eq!(actual, status, "{method} {path}: {response}");
    }
}

#[tokio::test]
async fn json_of_any_type_is_accepted_where_the_python_runner_does() {
    let (_home, server) = server().await;
    server.queue("typed-a", "gen").await;
    let with_type = |path: &str, body: &Value, headers: &[(&'static str, &str)]| {
        let request = server
            .request("POST", path)
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(body.to_string());
        let request = headers.iter().fold(request, |request, (name, value)| {
            request.header(*name, *value)
        });
        async move { send(request).await.0 }
    };
    let candidates = json!([{ "codebase": "typed-a", "campaign": "gen", "value": "7",
        "success_chance": "0.5" }]);
    let schedule = json!({ "codebase": "typed-a", "campaign": "gen", "offset": "12",
        "estimated_duration": "3.5" });
    let claim = json!({ "worker": "w1" });
    for (path, body) in [
        (
            "/codebases",
            json!([{ "name": "typed-b", "branch_url": "https://x.example/b" }]),
        ),
        ("/candidates", candidates),
        ("/schedule", schedule.clone()),
        (
            "/schedule-control",
            json!({ "codebase": "typed-a", "main_branch_revision": "r" }),
        ),
        ("/active-runs", claim.clone()),
    ] {
        let status = with_type(path, &body, &[]).await;
        assert!((200..300).contains(&status), "{path}: {status}");
    }
    for path in ["/admin/workers", "/parked/unpark"] {
        let body = json!({ "name": "w9", "kind": "all", "reason": "x" });
        assert_eq!(with_type(path, &body, &[]).await, 415, "{path}");
    }
    let own = server.admin.clone();
    for (name, value, expected) in [
        ("Sec-Fetch-Site", "cross-site", 403),
        ("Sec-Fetch-Site", "same-site", 403),
        ("Origin", "https://elsewhere.example", 403),
        ("Origin", "null", 403),
        ("Sec-Fetch-Site", "same-origin", 200),
        ("Sec-Fetch-Site", "none", 200),
        ("Origin", own.as_str(), 200),
    ] {
        let status = with_type("/schedule", &schedule, &[(name, value)]).await;
        assert_eq!(status, expected, "{name}: {value}");
    }
    for offset in [json!("many"), json!("nan"), json!([1])] {
        let body = json!({ "codebase": "typed-a", "campaign": "gen", "offset": offset });
        assert_eq!(with_type("/schedule", &body, &[]).await, 422, "{body}");
    }
}

/// Requests with a NUL byte in the path or the query: method, path, and the field that the response
/// names.
const NUL_BYTES: &[(&str, &str, &str)] = &[
    ("GET", "/runs/%00", "run_id"),
    ("POST", "/runs/a%00", "run_id"),
    ("GET", "/active-runs/%00", "run_id"),
    ("POST", "/active-runs/%00/finish", "run_id"),
    ("POST", "/kill/%00", "run_id"),
    ("GET", "/log/%00", "run_id"),
    ("GET", "/log/x/%00.log", "name"),
    (
        "GET",
        "/queue/position?codebase=ab&campaign=%00",
        "campaign",
    ),
    ("DELETE", "/admin/workers/%00", "name"),
    ("POST", "/admin/workers/%00/rotate", "name"),
    ("DELETE", "/pauses?kind=host&name=%00", "name"),
    ("DELETE", "/limits?kind=host&name=%00", "name"),
    ("GET", "/parked?campaign=%00", "campaign"),
    ("GET", "/runs?limit=%00", "limit"),
    ("GET", "/queue?x%00=1", "x"),
];

#[tokio::test]
async fn nul_bytes_are_rejected_with_the_field() {
    for (_home, server) in servers().await {
        for (method, path, field) in NUL_BYTES {
            let (status, response) = send(server.request(method, path)).await;
            assert_eq!(
                status, 400,
                "{method} {path} on {}: {response}",
                server.store
            );
            assert!(
                response["field"]
                    .as_str()
                    .is_some_and(|named| named.starts_with(field)),
                "{method} {path}: {response} does not name {field}"
            );
        }
        let paused = send(server.request("PUT", "/pauses").json(&json!({
            "kind": "host",
            "name": "example.com",
            "reason": "a\0",
        })));
        let (status, response) = paused.await;
        assert_eq!(status, 422, "{response}");
        assert_eq!(response["field"], "reason");
        for name in ["w\0", "w1\0", "\0"] {
            let login = server
                .public_request("GET", "/runner/active-runs/x")
                .basic_auth(name, Some("secret1"));
            assert_eq!(send(login).await.0, 401, "{}", server.store);
        }
        let login = server
            .public_request("GET", "/runner/active-runs/x")
            .basic_auth("w1", Some("secret1\0"));
        assert_eq!(send(login).await.0, 401, "{}", server.store);
        assert_eq!(server.get("/ready").await.0, 200);
    }
}

#[tokio::test]
async fn commands_with_an_open_quote_are_rejected() {
    for (_home, server) in servers().await {
        server.queue("bad-a", "gen").await;
        let uploaded = server
            .post(
                "/candidates",
                &json!([
                    { "codebase": "bad-a", "campaign": "gen", "command": "x # don't" },
                    { "codebase": "bad-a", "campaign": "gen", "command": "" },
                ]),
            )
            .await;
        assert_eq!(uploaded.0, 200, "{uploaded:?}");
        assert_eq!(uploaded.1["invalid_command"], json!(["x # don't"]));
        assert_eq!(uploaded.1["success"].as_array().unwrap().len(), 1);
        let queued = server.get("/queue").await.1;
        assert_ne!(queued[0]["command"], "", "{queued}");
    }
}

#[tokio::test]
async fn command_of_an_assignment_stays_as_written() {
    for (_home, server) in servers().await {
        server.queue("bad-a", "gen").await;
        for (command, rest) in [
            ("A=1 x >> f", "x >> f"),
            ("A='1' a | b", "a | b"),
            ("A=\"1\"  tidy  \"$HOME\" # why", "tidy  \"$HOME\" # why"),
        ] {
            let candidate = json!({ "codebase": "bad-a", "campaign": "gen", "command": command });
            let uploaded = server.post("/candidates", &json!([candidate])).await;
            assert_eq!(uploaded.0, 200, "{uploaded:?}");
            let next = server.get("/active-runs/+peek").await.1;
            assert_eq!(next["codemod"]["command"], rest, "{next}");
            assert_eq!(next["env"]["A"], "1", "{next}");
        }
    }
}
