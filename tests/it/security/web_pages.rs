//! A web page of somebody else's in an operator's browser changes nothing and reads nothing.

use crate::support::process::Server;
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
};

/// What an attacker's page would send to have commands run on workers.
const WRITES: [(&str, &str, &str); 6] = [
    ("POST", "/codebases", r#"[{"name":"evil"}]"#),
    (
        "POST",
        "/candidates",
        r#"[{"codebase":"evil","campaign":"mycampaign","command":"sh -c evil","bucket":"manual"}]"#,
    ),
    ("POST", "/admin/workers", r#"{"name":"evil"}"#),
    ("POST", "/admin/workers/w1/rotate", ""),
    ("POST", "/active-runs", r#"{"worker":"evil"}"#),
    ("DELETE", "/admin/workers/w1", ""),
];

const READS: [&str; 7] = [
    "/status",
    "/queue",
    "/admin/workers",
    "/metrics",
    "/ready",
    "/openapi.json",
    "/no/such/path",
];

/// Sends a request of these lines to the server at `url`; returns the status and the response.
fn raw(url: &str, head: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    let length = body.len();
    let request = format!("{head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let status = response.split(' ').nth(1).unwrap().parse().unwrap();
    (status, response)
}

async fn nothing_was_changed(server: &Server) {
    assert_eq!(server.get("/codebases").await.1, json!([]));
    let workers = server.get("/admin/workers").await.1;
    let names: Vec<&Value> = workers["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| &worker["name"])
        .collect();
    assert_eq!(names, ["w1"]);
    let login = server
        .public_request("GET", "/runner/active-runs/x")
        .basic_auth("w1", Some("secret"));
    assert_ne!(
        login.send().await.unwrap().status(),
        401,
        "the old password"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_with_another_host_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let settings = "[admin]\nhosts = [\"janitor.example.com\", \"*.example.org\"]\n";
    let server = Server::start(home.path(), "memory:", settings).await;
    server.add_worker("w1", "secret").await;
    for host in ["evil.example:9911", "127.0.0.1.evil.example", "a@127.0.0.1"] {
        for (method, path, body) in WRITES {
            let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}");
            let (status, response) = raw(&server.admin, &head, body);
            assert_eq!(status, 403, "{head}");
            assert!(response.contains("admin.hosts"), "{response}");
            assert!(response.contains("application/problem+json"), "{response}");
        }
        for path in READS {
            let head = format!("GET {path} HTTP/1.1\r\nHost: {host}");
            assert_eq!(raw(&server.admin, &head, "").0, 403, "{head}");
        }
    }
    // The first line of a request may have another name than its Host.
    let head = "GET http://evil.example/status HTTP/1.1\r\nHost: 127.0.0.1";
    assert_eq!(raw(&server.admin, head, "").0, 403);
    nothing_was_changed(&server).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_the_service_are_served() {
    let home = tempfile::tempdir().unwrap();
    let settings = "[admin]\nhosts = [\"janitor.example.com\", \"*.example.org\"]\n";
    let server = Server::start(home.path(), "memory:", settings).await;
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for host in [
        "127.0.0.1:9911",
        "[::1]",
        "localhost",
        "runner:9911",
        "janitor.example.com",
        "a.example.org:80",
        machine.trim(),
    ] {
        for head in [
            format!("GET /status HTTP/1.1\r\nHost: {host}"),
            format!("POST /codebases HTTP/1.1\r\nHost: {host}"),
        ] {
            let body = if head.starts_with("POST") { "[]" } else { "" };
            assert_eq!(raw(&server.admin, &head, body).0, 200, "{head}");
        }
    }
    // Tools of old times send no name at all.
    assert_eq!(raw(&server.admin, "GET /status HTTP/1.0", "").0, 200);
    // The Python runner looks at no content type, and neither do its tools.
    for kind in ["text/plain", "application/x-www-form-urlencoded"] {
        let head = format!("POST /codebases HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}");
        assert_eq!(raw(&server.admin, &head, "[]").0, 200, "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_of_other_pages_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", "").await;
    server.add_worker("w1", "secret").await;
    let host = server.admin.strip_prefix("http://").unwrap();
    for from in [
        "Origin: https://evil.example",
        "Origin: null",
        "Origin: http://127.0.0.1:1",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ] {
        for (method, path, body) in WRITES {
            // A form or a beacon may send JSON under another content type, without asking first.
            let head = format!(
                "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{from}\r\nContent-Type: text/plain"
            );
            assert_eq!(raw(&server.admin, &head, body).0, 403, "{head}");
        }
        // Its answers cannot be read by a page, and a link to them is no harm.
        let head = format!("GET /status HTTP/1.1\r\nHost: {host}\r\n{from}");
        let (status, response) = raw(&server.admin, &head, "");
        assert_eq!(status, 200, "{head}");
        assert!(
            !response.to_lowercase().contains("access-control"),
            "{response}"
        );
    }
    nothing_was_changed(&server).await;
    for from in [
        format!("Origin: http://{host}"),
        "Sec-Fetch-Site: same-origin".to_owned(),
    ] {
        let head = format!("POST /codebases HTTP/1.1\r\nHost: {host}\r\n{from}");
        assert_eq!(raw(&server.admin, &head, "[]").0, 200, "{head}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_cannot_use_a_workers_login_that_a_browser_has() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", "").await;
    server.add_worker("w1", "secret").await;
    server.queue("abc", "mycampaign").await;
    for (name, value) in [
        ("Origin", "https://evil.example"),
        ("Sec-Fetch-Site", "cross-site"),
    ] {
        let claim = server
            .public_request("POST", "/runner/active-runs")
            .basic_auth("w1", Some("secret"))
            .header(name, value)
            .json(&json!({}));
        assert_eq!(claim.send().await.unwrap().status(), 403, "{name}");
    }
    let claim = server
        .public_request("POST", "/runner/active-runs")
        .basic_auth("w1", Some("secret"))
        // The public port has whatever name its proxy gives it.
        .header("Host", "runner.example.com")
        .json(&json!({}));
    assert_eq!(claim.send().await.unwrap().status(), 201);
}

#[tokio::test(flavor = "multi_thread")]
async fn responses_are_not_run_by_browsers() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", "").await;
    server.queue("abc", "mycampaign").await;
    let id = server.claim_of("abc").await;
    let log: &[u8] = b"<html><script>alert(1)</script>";
    let files: [(&str, &[u8]); 2] = [("worker.log", log), ("page.html", log)];
    let finished = server
        .finish(&id, &json!({ "code": "success" }), &files)
        .await;
    assert_eq!(finished.0, 201, "{finished:?}");
    for path in [
        "/status", "/ready", "/metrics", "/no/such", "/docs/", "/runs",
    ] {
        let response = server.request("GET", path).send().await.unwrap();
        assert_eq!(
            response.headers()["x-content-type-options"],
            "nosniff",
            "{path}"
        );
    }
    let public = server
        .public_request("GET", "/queue/stats")
        .send()
        .await
        .unwrap();
    assert_eq!(public.headers()["x-content-type-options"], "nosniff");
    let url = format!("/log/{id}/worker.log");
    let log = server.request("GET", &url).send().await.unwrap();
    assert_eq!(log.status(), 200);
    assert_eq!(log.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(log.headers()["x-content-type-options"], "nosniff");

    let page = server.request("GET", "/docs/").send().await.unwrap();
    assert_eq!(page.headers()["x-frame-options"], "DENY");
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    assert!(policy.contains("script-src 'self';"), "{policy}");
    assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
    let page = page.text().await.unwrap();
    for (start, _) in page.match_indices("<script") {
        let script: String = page[start..].chars().take_while(|c| *c != '>').collect();
        assert!(
            script.contains("src="),
            "an inline script would not run: {script}"
        );
    }
    let script = server
        .request("GET", "/docs/swagger-initializer.js")
        .send()
        .await
        .unwrap();
    let script = script.text().await.unwrap();
    assert!(script.contains("\"validatorUrl\": \"none\""), "{script}");
}

#[tokio::test(flavor = "multi_thread")]
async fn description_says_which_listener_and_login_a_path_has() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", "").await;
    let description = server.get("/openapi.json").await.1;
    let schemes = &description["components"]["securitySchemes"];
    assert_eq!(schemes["admin_token"]["scheme"], "bearer");
    assert_eq!(schemes["worker"]["scheme"], "basic");
    for (path, item) in description["paths"].as_object().unwrap() {
        let is_public = path.starts_with("/runner");
        assert_eq!(item["servers"].is_array(), is_public, "{path}");
        for (method, operation) in item.as_object().unwrap() {
            let Some(security) = operation["security"].as_array() else {
                assert!(
                    ["servers", "parameters"].contains(&method.as_str()),
                    "{method} {path}"
                );
                continue;
            };
            let needs_worker = security.iter().any(|any| any["worker"].is_array());
            assert_eq!(needs_worker, is_public, "{method} {path}");
            if !["/health", "/ready"].contains(&path.as_str()) {
                for status in ["401", "403"] {
                    assert!(
                        operation["responses"][status].is_object(),
                        "{method} {path} {status}"
                    );
                }
            }
        }
    }
}
