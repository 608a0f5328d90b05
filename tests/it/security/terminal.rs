//! Text from outside reaches no terminal as it is: control characters in it are escaped.

use crate::support::process::{PROGRAM, Server};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// A title for the terminal's window, in C0 and in C1, a deletion, and a change of direction.
const NASTY: &str = "x\x1b]0;owned\x07\u{9d}0;owned\u{9c}\x7f\r\u{202e}y";

async fn output_of(mut command: Command) -> Vec<u8> {
    command.stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    [output.stdout, output.stderr].concat()
}

/// What a client command prints.
async fn client(server: &Server, arguments: &[&str]) -> String {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env("JANITOR_SERVER", &server.admin);
    String::from_utf8(output_of(command).await).unwrap()
}

/// What a client command prints to a terminal.
async fn client_on_terminal(server: &Server, arguments: &str) -> Vec<u8> {
    let mut command = Command::new("script");
    command
        .args(["-qec", &format!("{PROGRAM} {arguments}"), "/dev/null"])
        .env("JANITOR_SERVER", &server.admin);
    output_of(command).await
}

fn is_harmless(text: &str) -> bool {
    !text.contains(|c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200e}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

async fn nasty_server(home: &std::path::Path) -> (Server, String) {
    let server = Server::start(home, "memory:", "").await;
    server.queue("foo", "gen").await;
    let pause = json!({ "kind": "worker", "name": NASTY, "reason": NASTY });
    let paused = server.request("PUT", "/pauses").json(&pause);
    assert!(paused.send().await.unwrap().status().is_success());
    let worker = json!({ "name": "w1", "password": "p", "link": format!("https://h/{NASTY}") });
    server.post("/admin/workers", &worker).await;
    let id = server.claim_of("foo").await;
    let report = json!({
        "code": "odd", "description": format!("{NASTY}\nsecond line"), "context": NASTY,
        "failure_details": { NASTY: NASTY },
    });
    let log = format!("{NASTY}\n\x1b[31mred\x1b[0m\n");
    let finished = server
        .finish(&id, &report, &[("worker.log", log.as_bytes())])
        .await;
    assert_eq!(finished.0, 201, "{finished:?}");
    (server, id)
}

#[tokio::test]
async fn tables_and_errors_have_no_control_characters() {
    let home = tempfile::tempdir().unwrap();
    let (server, id) = nasty_server(home.path()).await;
    for arguments in [
        &["pause", "ls"][..],
        &["worker", "ls"],
        &["run", "ls"],
        &["run", "show", &id],
        &["queue", "ls"],
        &["status"],
        &["run", "show", NASTY],
        &["pause", "add", "host", NASTY],
        &["pause", "rm", "codebase", NASTY],
        &["limit", "rm", "host", NASTY],
        &["queue", "ls", "--server", NASTY],
    ] {
        let text = client(&server, arguments).await;
        assert!(!text.is_empty(), "{arguments:?}");
        assert!(is_harmless(&text), "{arguments:?}: {text:?}");
    }
    let pauses = client(&server, &["pause", "ls"]).await;
    assert!(pauses.contains("\\u{1b}"), "{pauses}");
}

#[tokio::test]
async fn json_stays_the_same_and_is_harmless() {
    let home = tempfile::tempdir().unwrap();
    let (server, id) = nasty_server(home.path()).await;
    for arguments in [
        &["pause", "ls", "--json"][..],
        &["run", "show", &id, "--json"],
        &["worker", "ls", "--json"],
    ] {
        let text = client(&server, arguments).await;
        assert!(is_harmless(&text), "{arguments:?}: {text:?}");
        serde_json::from_str::<Value>(&text).unwrap();
    }
    let pauses: Value =
        serde_json::from_str(&client(&server, &["pause", "ls", "--json"]).await).unwrap();
    assert_eq!(pauses["pauses"][0]["reason"], NASTY);
}

#[tokio::test]
async fn log_is_raw_in_a_pipe_and_harmless_on_a_terminal() {
    let home = tempfile::tempdir().unwrap();
    let (server, id) = nasty_server(home.path()).await;
    let piped = client(&server, &["run", "logs", &id]).await;
    assert_eq!(piped, format!("{NASTY}\n\x1b[31mred\x1b[0m\n"));
    for arguments in [format!("run logs {id}"), format!("run show --log {id}")] {
        let shown = client_on_terminal(&server, &arguments).await;
        let shown = String::from_utf8(shown).unwrap().replace("\r\n", "\n");
        assert!(shown.contains("\\u{1b}[31mred"), "{shown:?}");
        assert!(is_harmless(&shown), "{shown:?}");
    }
}

#[tokio::test]
async fn names_cannot_write_lines_of_the_server_log() {
    let home = tempfile::tempdir().unwrap();
    let backup = home.path().join("backup");
    let name = "w\n2026-11-26T00:00:00Z ERROR forged: line\x1b[2J\u{9b}2J\u{202e}";
    std::fs::create_dir_all(backup.join("artifacts")).unwrap();
    std::fs::write(backup.join("artifacts").join(name), "x").unwrap();
    let settings = format!("backup_directory = \"{}\"\n", backup.display());
    let server = Server::start(home.path(), "memory:", &settings).await;
    let started = std::time::Instant::now();
    while !server.log().contains("set aside") {
        assert!(started.elapsed().as_secs() < 30, "{}", server.log());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let log = server.log();
    assert!(is_harmless(&log), "{log:?}");
    assert!(!log.contains("\n2026-11-26T00:00:00Z"), "{log}");
}
