//! With tokens, nobody uses the admin API without one, and each role does only its part.

use crate::support::process::{PROGRAM, Server};
use serde_json::{Value, json};
use std::{path::Path, process::Command};

/// Makes a token with the command line; returns it and its entry in the settings.
fn make(name: &str, role: &str) -> (String, String) {
    let output = Command::new(PROGRAM)
        .args(["token", "add", name, "--role", role, "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let made: Value = serde_json::from_slice(&output.stdout).unwrap();
    let secret = made["secret"].as_str().unwrap();
    let entry =
        format!("[[admin.token]]\nname = \"{name}\"\nrole = \"{role}\"\nsecret = \"{secret}\"\n");
    (made["token"].as_str().unwrap().to_owned(), entry)
}

struct Guarded {
    server: Server,
    viewer: String,
    operator: String,
    admin: String,
}

async fn guarded(home: &Path) -> Guarded {
    let [viewer, operator, admin] =
        [("vera", "viewer"), ("otto", "operator"), ("anna", "admin")].map(|(n, r)| make(n, r));
    let settings = format!("{}{}{}", viewer.1, operator.1, admin.1);
    Guarded {
        server: Server::start(home, "memory:", &settings).await,
        viewer: viewer.0,
        operator: operator.0,
        admin: admin.0,
    }
}

async fn status(server: &Server, method: &str, path: &str, token: &str) -> (u16, String) {
    let request = server.request(method, path).bearer_auth(token);
    let body = match path {
        "/admin/workers" => json!({ "name": "w1" }),
        _ => json!([]),
    };
    let request = if method == "POST" {
        request.json(&body)
    } else {
        request
    };
    let response = request.send().await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_but_probes_works_without_a_token() {
    let home = tempfile::tempdir().unwrap();
    let guarded = guarded(home.path()).await;
    let server = &guarded.server;
    for path in ["/health", "/ready"] {
        assert_eq!(server.get(path).await.0, 200, "{path}");
    }
    for path in [
        "/status",
        "/metrics",
        "/docs/",
        "/openapi.json",
        "/no/such",
        "/admin/workers",
    ] {
        let response = server.request("GET", path).send().await.unwrap();
        assert_eq!(response.status(), 401, "{path}");
        let challenge = response.headers()["www-authenticate"].to_str().unwrap();
        assert!(
            challenge.contains("Basic") && challenge.contains("Bearer"),
            "{challenge}"
        );
    }
    for path in ["/codebases", "/active-runs", "/health"] {
        assert_eq!(server.post(path, &json!([])).await.0, 401, "{path}");
    }
    let cut = &guarded.admin[..guarded.admin.len() - 1];
    for wrong in ["", "x", cut, &format!("{}x", guarded.admin)] {
        assert_eq!(
            status(server, "GET", "/status", wrong).await.0,
            401,
            "{wrong}"
        );
    }
    // The hash in the settings is no token.
    let settings = std::fs::read_to_string(home.path().join("settings.toml")).unwrap();
    let hash = settings.split("secret = \"").nth(1).unwrap();
    let hash = hash.split('"').next().unwrap();
    assert_eq!(status(server, "GET", "/status", hash).await.0, 401);
    // Workers have their own login, as before.
    let public = server.public_request("GET", "/runner/active-runs/x");
    assert_eq!(
        public
            .bearer_auth(&guarded.admin)
            .send()
            .await
            .unwrap()
            .status(),
        401
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn each_role_does_only_its_part() {
    let home = tempfile::tempdir().unwrap();
    let guarded = guarded(home.path()).await;
    let server = &guarded.server;
    for token in [&guarded.viewer, &guarded.operator, &guarded.admin] {
        for path in ["/status", "/metrics", "/queue", "/admin/workers"] {
            assert_eq!(status(server, "GET", path, token).await.0, 200, "{path}");
        }
    }
    let refused = status(server, "POST", "/codebases", &guarded.viewer).await;
    assert_eq!(refused.0, 403);
    assert!(refused.1.contains("role operator"), "{}", refused.1);
    for token in [&guarded.operator, &guarded.admin] {
        assert_eq!(status(server, "POST", "/codebases", token).await.0, 200);
    }
    for token in [&guarded.viewer, &guarded.operator] {
        for (method, path) in [
            ("POST", "/admin/workers"),
            ("POST", "/admin/workers/w1/rotate"),
            ("DELETE", "/admin/workers/w1"),
        ] {
            let refused = status(server, method, path, token).await;
            assert_eq!(refused.0, 403, "{method} {path}");
            assert!(refused.1.contains("role admin"), "{}", refused.1);
        }
    }
    assert_eq!(
        status(server, "POST", "/admin/workers", &guarded.admin)
            .await
            .0,
        201
    );
    // A browser asks for a name and a password.
    let basic = server
        .request("GET", "/status")
        .basic_auth("anybody", Some(&guarded.viewer));
    assert_eq!(basic.send().await.unwrap().status(), 200);
    // A token keeps no page of another host from being refused.
    let page = server
        .request("POST", "/codebases")
        .bearer_auth(&guarded.operator)
        .header("Origin", "https://evil.example")
        .json(&json!([]));
    assert_eq!(page.send().await.unwrap().status(), 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn command_line_takes_a_token_and_never_prints_it() {
    let home = tempfile::tempdir().unwrap();
    let guarded = guarded(home.path()).await;
    let file = home.path().join("token");
    std::fs::write(&file, format!("{}\n", guarded.admin)).unwrap();
    let run = |arguments: &[&str], token: Option<&str>| {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .env("JANITOR_SERVER", &guarded.server.admin);
        if let Some(token) = token {
            command.env("JANITOR_TOKEN", token);
        }
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).unwrap();
        for token in [&guarded.viewer, &guarded.admin] {
            assert!(!text.contains(token.as_str()), "{text}");
        }
        (output.status.success(), text)
    };
    let refused = run(&["status"], None);
    assert!(!refused.0 && refused.1.contains("401"), "{refused:?}");
    assert!(run(&["status"], Some(&guarded.viewer)).0);
    assert!(run(&["status", "--token", &guarded.viewer], None).0);
    let file = file.to_str().unwrap();
    assert!(run(&["worker", "add", "w2", "--token-file", file], None).0);
    let refused = run(&["worker", "add", "w3"], Some(&guarded.viewer));
    assert!(
        !refused.0 && refused.1.contains("role admin"),
        "{refused:?}"
    );
    assert!(run(&["status", "--help"], Some(&guarded.viewer)).0);
    // Nor does the service show them, or their hashes.
    let settings = home.path().join("settings.toml");
    let shown = run(&["config", "--config", settings.to_str().unwrap()], None);
    assert!(shown.0 && shown.1.contains("vera"), "{shown:?}");
    assert!(!shown.1.contains("sha256:"), "{shown:?}");
    assert!(!guarded.server.log().contains(&guarded.admin));
}

#[test]
fn token_that_is_no_hash_is_refused_without_being_shown() {
    let home = tempfile::tempdir().unwrap();
    let settings = home.path().join("settings.toml");
    for entry in [
        "secret = \"jrt_plain\"\nrole = \"admin\"\nname = \"a\"",
        "secret = \"sha256:jrt_plain\"\nrole = \"admin\"\nname = \"a\"",
        "secret = \"jrt_plain\"\nrole = \"root\"\nname = \"a\"",
        "secret = \"jrt_plain\"\nrole = \"admin\"\nname = \"\"",
    ] {
        std::fs::write(&settings, format!("[[admin.token]]\n{entry}\n")).unwrap();
        let output = Command::new(PROGRAM)
            .args(["serve", "--config"])
            .arg(&settings)
            .current_dir(home.path())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains("admin.token[0]"), "{text}");
        assert!(!text.contains("jrt_plain"), "{text}");
    }
}

#[test]
fn token_is_appended_to_the_settings() {
    let home = tempfile::tempdir().unwrap();
    let settings = home.path().join("settings.toml");
    std::fs::write(&settings, "[admin]\nhosts = [\"a.example\"]").unwrap();
    for name in ["anna", "the \"site\" \\ é"] {
        let output = Command::new(PROGRAM)
            .args(["token", "add", name, "--role", "viewer", "--append-to"])
            .arg(&settings)
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains("jrt_"), "{text}");
        assert!(!text.contains("sha256:"), "{text}");
    }
    let config = Command::new(PROGRAM)
        .args(["config", "--config"])
        .arg(&settings)
        .output()
        .unwrap();
    let text = String::from_utf8(config.stdout).unwrap();
    for part in ["\"anna\"", "\"the \\\"site\\\" \\\\ é\"", "a.example"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let written = std::fs::read_to_string(&settings).unwrap();
    assert!(!written.contains("jrt_"), "{written}");
    for wrong in [["", "viewer"], ["a\nb", "viewer"], ["a", "root"]] {
        let output = Command::new(PROGRAM)
            .args(["token", "add", wrong[0], "--role", wrong[1]])
            .output()
            .unwrap();
        assert!(!output.status.success(), "{wrong:?}");
    }
}
