//! The command line, as a user types it.

use crate::support::process::{PROGRAM, Server, root};
use serde_json::{Value, json};
use std::process::{Command, Output};

async fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

fn text_of(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[tokio::test]
async fn demo_succeeds_and_prints_results() {
    let home = tempfile::tempdir().unwrap();
    let kept = home.path().join("kept");
    let output = run(&["demo", "--keep", kept.to_str().unwrap()]).await;
    let text = text_of(&output);
    assert!(output.status.success(), "{text}");
    for part in [
        "tidy-whitespace",
        "success",
        "nothing-to-do",
        "no-makefile",
        "+Says hello.",
        "Scheduled to run again",
        "on top of the new commit",
        "was found at http://127.0.0.1:",
        "waited while localhost limited the rate",
        "Everything went as it should.",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
    let log = kept.join("logs/greeter");
    assert!(
        std::fs::read_dir(log).unwrap().count() >= 3,
        "one for each campaign at least"
    );
    let branches = Command::new("git")
        .arg("-C")
        .arg(kept.join("vcs/git/greeter"))
        .args(["log", "--oneline", "tidy-whitespace/main"])
        .output()
        .unwrap();
    // Two of the repository, the result of the first run on top of them, and that of the second.
    assert_eq!(String::from_utf8_lossy(&branches.stdout).lines().count(), 4);
    let again = run(&["demo", "--keep", kept.to_str().unwrap()]).await;
    assert!(!again.status.success());
    assert!(self::text_of(&again).contains("not empty"));
}

#[tokio::test]
async fn demo_accepts_repository_and_command() {
    let home = tempfile::tempdir().unwrap();
    let repository = home.path().join("My Repo.git");
    for arguments in [
        vec!["init", "--quiet"],
        vec![
            "-c",
            "user.name=T",
            "-c",
            "user.email=t@x",
            "commit",
            "--quiet",
            "--allow-empty",
            "--message",
            "Start",
        ],
    ] {
        std::fs::create_dir_all(&repository).unwrap();
        assert!(
            Command::new("git")
                .args(arguments)
                .current_dir(&repository)
                .status()
                .unwrap()
                .success()
        );
    }
    let repository = repository.to_str().unwrap();
    let output = run(&[
        "demo",
        "--repo",
        repository,
        "--command",
        "echo it > new-file",
    ])
    .await;
    assert!(output.status.success(), "{}", text_of(&output));
    assert!(text_of(&output).contains("+it"), "{}", text_of(&output));
    let failing = run(&["demo", "--repo", repository, "--command", "exit 9"]).await;
    assert!(!failing.status.success(), "{}", text_of(&failing));
    assert!(
        text_of(&failing).contains("command-failed"),
        "{}",
        text_of(&failing)
    );
    assert_eq!(
        run(&["demo", "--repo", repository]).await.status.code(),
        Some(2)
    );
}

#[tokio::test]
async fn config_prints_settings_with_their_origin() {
    let golden = root().join("tests/golden/campaigns.conf");
    let shown = run(&[
        "config",
        "--config",
        golden.to_str().unwrap(),
        "--port",
        "1234",
        "--pre-check",
        "x",
    ])
    .await;
    let text = text_of(&shown);
    for part in [
        "port = 1234  # command line",
        "campaigns.conf",
        "warning: --pre-check never did anything",
        "limits.json_body = \"64 MiB\"",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[tokio::test]
async fn check_reports_settings_and_stores_that_do_not_work() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name).display().to_string();
    let spool = ("JANITOR_RUNNER_SPOOL", at("spool"));
    let (store, artifacts, logs) = (format!("sled:{}", at("db")), at("artifacts"), at("logs"));
    let check = |artifacts: String| {
        let mut command = Command::new(PROGRAM);
        command
            .args([
                "check",
                "--store",
                &store,
                "--artifacts",
                &artifacts,
                "--logs",
                &logs,
            ])
            .env(spool.0, &spool.1);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let well = check(artifacts).await.unwrap();
    assert!(well.status.success(), "{}", text_of(&well));
    assert!(
        text_of(&well).contains("artifacts    ok"),
        "{}",
        text_of(&well)
    );
    std::fs::write(home.path().join("file"), "").unwrap();
    let broken = check(at("file")).await.unwrap();
    assert!(!broken.status.success(), "{}", text_of(&broken));
    assert!(
        text_of(&broken).contains("artifacts    check the artifacts' folder"),
        "{}",
        text_of(&broken)
    );
    let wrong = run(&["serve", "--store", "tape:x"]).await;
    assert_eq!(wrong.status.code(), Some(1), "{}", text_of(&wrong));
    assert!(text_of(&wrong).contains("store: "), "{}", text_of(&wrong));
    assert!(
        text_of(&wrong).contains("command line"),
        "{}",
        text_of(&wrong)
    );
}

/// Runs a client command with these words, for a running server.
async fn client(server: &Server, arguments: &str) -> Output {
    let mut command = Command::new(PROGRAM);
    command
        .args(arguments.split(' '))
        .env("JANITOR_SERVER", &server.admin);
    tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap()
}

#[tokio::test]
async fn client_commands_manage_worker_accounts() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", "").await;
    let added = client(&server, "worker add w1").await;
    assert!(text_of(&added).contains("shown this once"));
    assert!(!client(&server, "worker add w1").await.status.success());
    assert!(text_of(&client(&server, "worker ls").await).contains("w1"));
    assert!(
        text_of(&client(&server, "worker rotate w1").await)
            .contains("its password, shown this once: ")
    );
    assert!(
        !client(&server, "worker rotate nobody")
            .await
            .status
            .success()
    );
    assert!(client(&server, "worker rm w1").await.status.success());
}

#[tokio::test]
async fn client_commands_import_and_list() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), "memory:", "").await;
    server.add_worker("w1", "secret1").await;
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let codebases = file("codebases.yaml", "- name: cli-a\n- name: cli-b\n");
    assert!(
        text_of(&client(&server, &format!("codebase import {codebases}")).await)
            .contains("2 codebases stored")
    );
    let candidates = file(
        "candidates.ndjson",
        "{\"codebase\": \"cli-a\", \"campaign\": \"gen\"}\n{\"codebase\": \"nowhere\", \"campaign\": \"gen\"}\n",
    );
    let imported = client(&server, &format!("candidate import {candidates}")).await;
    assert_eq!(imported.status.code(), Some(1));
    assert!(
        text_of(&imported).contains("1 of 2 candidates stored"),
        "{}",
        text_of(&imported)
    );
    assert!(
        text_of(&imported).contains("unknown codebases: \"nowhere\""),
        "{}",
        text_of(&imported)
    );
    assert!(text_of(&client(&server, "queue ls").await).contains("cli-a"));
    let run = server.take("cli-a").await;
    let status = client(&server, "status --json").await;
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["status"]["processing"][0]["codebase"], "cli-a");
    assert!(text_of(&client(&server, "status").await).contains("running 1"));
    let id = run["id"].as_str().unwrap();
    server
        .finish(id, &json!({ "revision": "r" }), &[("w.log", b"line one\n")])
        .await;
    let shown = client(&server, &format!("run show {id} --log")).await;
    assert!(text_of(&shown).contains("success"), "{}", text_of(&shown));
    assert!(text_of(&shown).contains("line one"), "{}", text_of(&shown));
    assert!(text_of(&client(&server, "run ls").await).contains(id));
    let absent = client(&server, "run show nosuch").await;
    assert_eq!(absent.status.code(), Some(1), "{}", text_of(&absent));
    assert!(
        text_of(&absent).contains("no such run"),
        "{}",
        text_of(&absent)
    );
    let nobody = run_at_nothing().await;
    assert_eq!(nobody.status.code(), Some(1), "{}", text_of(&nobody));
    assert!(
        text_of(&nobody).contains("no service answers"),
        "{}",
        text_of(&nobody)
    );
}

async fn run_at_nothing() -> Output {
    run(&["status", "--server", "http://127.0.0.1:1"]).await
}

#[tokio::test]
async fn second_process_is_refused_and_sigterm_ends_the_server() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::sled(home.path()).await;
    let store = format!("sled:{}", home.path().join("db").display());
    let other = run(&["check", "--store", &store]).await;
    assert!(!other.status.success(), "{}", text_of(&other));
    assert!(
        text_of(&other).contains("another process"),
        "{}",
        text_of(&other)
    );
    assert!(
        Command::new("kill")
            .args(["-TERM", &server.pid().to_string()])
            .status()
            .unwrap()
            .success()
    );
    for _ in 0..100 {
        if server.log().contains("ending")
            && reqwest::get(format!("{}/health", server.admin))
                .await
                .is_err()
        {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("it is still running: {}", server.log());
}
