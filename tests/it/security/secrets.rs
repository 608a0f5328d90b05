//! Secrets of the settings are never shown: not by `config`, `check`, errors, `--help`, logs or health checks.

use crate::support::process::{PROGRAM, Server, send};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// A password with characters that end parts of a URL. Each part of it is looked for.
const PASSWORD: &str = "Gehe1m/Zwe1mal#Dre1mal@V1ermal?F%nf";
const PARTS: [&str; 4] = ["Gehe1m", "Zwe1mal", "Dre1mal", "V1ermal"];

fn assert_hidden(text: &str, context: &str) {
    for part in PARTS {
        assert!(!text.contains(part), "{context} shows {part}: {text}");
    }
}

/// Runs the program and returns all that it prints. It does not wait for servers for long.
async fn run(arguments: &[&str], environment: &[(&str, &str)], folder: &Path) -> String {
    let mut command = Command::new("timeout");
    command
        .args(["4", PROGRAM])
        .args(arguments)
        .current_dir(folder)
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Settings with a password in every place, of servers that are not there.
fn settings(password: &str) -> String {
    format!(
        "store = \"postgresql://u:{password}@127.0.0.1:1/db?sslmode=disable&pasword={password}\"\n\
         events = \"redis://:{password}@127.0.0.1:1/\"\n\
         coordination = \"unix:/no/such.sock?password={password}\"\n\
         artifacts = \"s3://bucket/\"\n\
         public_vcs_location = \"https://u:Gehe1m@host/\"\n\
         user_agent = \"token=Gehe1m\"\n\
         [s3]\n\
         endpoint = \"http://u:Gehe1m@127.0.0.1:1\"\n\
         access_key_id = \"{password}\"\nsecret_access_key = \"{password}\"\n"
    )
}

#[tokio::test]
async fn no_command_shows_a_secret_of_the_settings() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("password");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    let from_file = format!("{{file:{}}}", file.display());
    let mut runs = vec![];
    for (name, password) in [("file", from_file.as_str()), ("env", "{env:THE_PASSWORD}")] {
        let path = home.path().join(name);
        fs::write(&path, settings(password)).unwrap();
        for command in [
            &["config"][..],
            &["check"],
            &["migrate", "--dry-run"],
            &["serve", "--port", "0", "--public-port", "0"],
        ] {
            let path = path.to_str().unwrap().to_owned();
            let home = home.path();
            runs.push(async move {
                let arguments = [command, &["--config", &path]].concat();
                let environment = [
                    ("THE_PASSWORD", PASSWORD),
                    ("JANITOR_RUNNER_TELEMETRY__LOG", "debug"),
                ];
                let text = run(&arguments, &environment, home).await;
                assert!(!text.is_empty(), "{name}: {command:?} printed nothing");
                assert_hidden(&text, &format!("{name}: {command:?}"));
            });
        }
    }
    futures::future::join_all(runs).await;
}

#[tokio::test]
async fn config_shows_urls_without_user_and_query() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("s.toml");
    fs::write(&path, settings("Gehe1m")).unwrap();
    let arguments = ["config", "--config", path.to_str().unwrap()];
    let text = run(&arguments, &[], home.path()).await;
    assert_hidden(&text, "config");
    for shown in [
        "store = \"postgresql://127.0.0.1:1/db?…\"",
        "events = \"redis://127.0.0.1:1/\"",
        "s3.endpoint = \"http://127.0.0.1:1\"",
        "s3.secret_access_key = \"***\"",
    ] {
        assert!(text.contains(shown), "{shown} is not in {text}");
    }
}

#[tokio::test]
async fn errors_about_settings_do_not_quote_them() {
    let home = tempfile::tempdir().unwrap();
    for (written, named) in [
        ("store = \"postgres:Gehe1m\"", "store"),
        ("store = \"postgresql:Gehe1m\"", "store"),
        ("store = \"Gehe1m\"", "store"),
        ("store = \"postgresql://u:12/Gehe1m@h/db\"", "store"),
        ("store = \"postgresql://u:Gehe1m/x@h/db\"", "store"),
        ("events = \"redis:Gehe1m\"", "events"),
        ("events = \"Gehe1m\"", "events"),
        ("coordination = \"redis://:1?Gehe1m@h/\"", "coordination"),
        ("artifacts = \"s3:Gehe1m\"", "artifacts"),
        ("artifacts = \"ftp://u:Gehe1m@h/\"", "artifacts"),
        ("logs = \"https:Gehe1m\"", "logs"),
        ("public_vcs_location = \"Gehe1m\"", "public_vcs_location"),
        ("port = \"Gehe1m\"", "port"),
        ("spool = [\"Gehe1m\"]", "spool"),
        ("[limits]\njson_body = \"Gehe1m\"", "json_body"),
        ("[telemetry]\nformat = \"token=Gehe1m\"", "format"),
        ("[s3]\nsecret_access_key = \"Gehe1m", "line 2"),
        ("port = 1\nstore = postgres://u:Gehe1m@h/", "line 2"),
        ("database_location: 5 'Gehe1m'", "s.conf"),
        ("database_location: 'Gehe1m", "s.conf"),
        ("database_location { a: 'Gehe1m' }", "s.conf"),
    ] {
        let path = home.path().join("s.conf");
        fs::write(&path, written).unwrap();
        for command in ["config", "check", "serve"] {
            let arguments = [command, "--config", path.to_str().unwrap()];
            let text = run(&arguments, &[], home.path()).await;
            assert!(text.contains("janitor-runner: "), "{written}: {text}");
            assert!(text.contains(named), "{written}: {text}");
            assert_hidden(&text, written);
        }
    }
}

#[tokio::test]
async fn wrong_types_in_the_environment_are_not_quoted() {
    let home = tempfile::tempdir().unwrap();
    for (name, value) in [
        ("JANITOR_RUNNER_STORE", "91827364"),
        ("JANITOR_RUNNER_PORT", "91827364"),
        ("JANITOR_RUNNER_S3__SECRET_ACCESS_KEY", "91827364"),
    ] {
        let text = run(&["config"], &[(name, value)], home.path()).await;
        assert!(text.contains("janitor-runner: "), "{name}: {text}");
        assert!(!text.contains(value), "{name}: {text}");
    }
}

#[tokio::test]
async fn password_of_the_server_url_is_not_shown() {
    let home = tempfile::tempdir().unwrap();
    let environment = [(
        "JANITOR_SERVER",
        "http://u:Gehe1m@127.0.0.1:1/?token=Zwe1mal",
    )];
    for arguments in [
        &["status", "--help"][..],
        &["run", "ls", "--help"],
        &["status"],
        &["run", "logs", "x"],
        &["worker", "ls"],
    ] {
        let text = run(arguments, &environment, home.path()).await;
        assert!(!text.is_empty(), "{arguments:?}");
        assert_hidden(&text, &format!("{arguments:?}"));
    }
}

#[tokio::test]
async fn health_checks_and_the_log_show_no_secret() {
    let home = tempfile::tempdir().unwrap();
    let settings = "events = \"redis://u:Gehe1m@127.0.0.1:1/\"\n\
        coordination = \"redis://u:Gehe1m@127.0.0.1:1/\"\n\
        artifacts = \"s3://bucket/\"\n\
        logs = \"http://u:Gehe1m@127.0.0.1:1\"\n\
        backup_directory = \"backup\"\n\
        [s3]\nendpoint = \"http://u:Gehe1m@127.0.0.1:1\"\naccess_key_id = \"k\"\n\
        secret_access_key = \"Gehe1m\"\n\
        [telemetry]\nlog = \"debug\"\n"
        .replace(
            "\"backup\"",
            &format!("\"{}\"", home.path().join("b").display()),
        );
    let server = Server::start(home.path(), "memory:", &settings).await;
    let health = server.request("GET", "/health");
    let health = send(health.header("Accept", "application/json")).await;
    assert!(
        health.1["checks"]["events"]["message"].is_string(),
        "{health:?}"
    );
    assert_hidden(&health.1.to_string(), "/health");
    server.queue("foo", "gen").await;
    let id = server.claim_of("foo").await;
    let report = serde_json::json!({ "code": "success" });
    server.finish(&id, &report, &[("worker.log", b"x")]).await;
    server
        .until("/runs", |runs| {
            runs.as_array().is_some_and(|runs| !runs.is_empty())
        })
        .await;
    assert!(server.log().contains("WARN"), "{}", server.log());
    assert_hidden(&server.log(), "the log");
}
