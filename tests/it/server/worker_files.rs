//! What codemods leave behind for the bundled worker: results, descriptions and artifacts.

use super::worker_fixture::WorkerFixture;
use crate::support::worker_harness::git;
use serde_json::json;

/// Has a codemod change the file and write this result.
fn with_result(json: &str) -> String {
    format!("echo two >> file.txt; printf '%s' '{json}' > \"$SVP_RESULT\"")
}

/// Has a codemod change the file and run more commands.
fn with_change(commands: &str) -> String {
    format!("echo two >> file.txt; cd \"$OUTPUT_DIRECTORY\"; {commands}")
}

#[tokio::test]
async fn description_becomes_the_commit_message_whatever_it_is() {
    let mut fixture = WorkerFixture::start().await;
    for (description, subject) in [
        ("# a comment", "# a comment"),
        ("-m --amend", "-m --amend"),
        ("a\\u0000b", "ab"),
        ("\\n\\n  \\n", "echo two"),
        ("", "echo two"),
        ("Two\\n\\n# lines", "Two"),
    ] {
        let script = with_result(&format!(r#"{{"description": "{description}"}}"#));
        let run = fixture.run(&script).await;
        assert_eq!(run["code"], "success", "{description:?}: {run}");
        let codebase = run["codebase"].as_str().unwrap();
        let revision = run["revision"].as_str().unwrap();
        let message = git(
            &fixture.pushed(codebase),
            &["log", "-1", "--format=%B", revision],
        );
        assert!(message.starts_with(subject), "{description:?}: {message:?}");
    }
}

#[tokio::test]
async fn huge_description_is_cut_with_a_mark() {
    let mut fixture = WorkerFixture::start().await;
    let script = r#"echo two >> file.txt; { printf '{"description": "'; head -c 3000000 /dev/zero | tr '\0' 'x'; printf '"}'; } > "$SVP_RESULT""#;
    let run = fixture.run(script).await;
    assert_eq!(run["code"], "success", "{}", run["failure_stage"]);
    let message = git(
        &fixture.pushed(run["codebase"].as_str().unwrap()),
        &[
            "log",
            "-1",
            "--format=%B",
            run["revision"].as_str().unwrap(),
        ],
    );
    assert!(message.len() < 100_000, "{}", message.len());
    assert!(message.ends_with("[cut]"));
    assert!(run["description"].as_str().unwrap().ends_with("[cut]"));
}

#[tokio::test]
async fn result_that_is_nearly_right_is_understood() {
    let mut fixture = WorkerFixture::start().await;
    let script = with_result(
        r#"{"description": "a", "value": "7.9", "context": {"a": [1]}, "tags": ["v1"], "details": "a\u0000b", "transient": "yes"}"#,
    );
    let run = fixture.run(&script).await;
    assert_eq!(run["code"], "success", "{run}");
    assert_eq!(run["value"], 7, "{run}");
    assert_eq!(run["tags"], json!([["v1", run["revision"]]]), "{run}");
    assert_eq!(run["codemod"]["context"], json!({"a": [1]}), "{run}");
}

#[tokio::test]
async fn text_that_is_not_unicode_is_understood() {
    let mut fixture = WorkerFixture::start().await;
    for result in [
        r#"{"description": "a \ud800 b"}"#,
        r#"{"description": "a \377 b", "value": NaN}"#,
        r#"\357\273\277{"description": "a b"}"#,
    ] {
        let script = format!(
            "echo two >> file.txt; printf '{}' > \"$SVP_RESULT\"",
            result.replace("\\ud", "\\\\ud")
        );
        let run = fixture.run(&script).await;
        assert_eq!(run["code"], "success", "{result}: {run}");
        let description = run["description"].as_str().unwrap();
        assert!(description.starts_with("a "), "{description}");
    }
}

#[tokio::test]
async fn file_that_is_no_result_ends_in_a_stored_failure() {
    let mut fixture = WorkerFixture::start().await;
    for command in [
        "mkfifo \"$SVP_RESULT\"",
        "mkdir \"$SVP_RESULT\"",
        "ln -s /etc/hostname \"$SVP_RESULT\"",
        "ln -s /dev/zero \"$SVP_RESULT\"",
        "truncate -s 30G \"$SVP_RESULT\"",
        "printf '{\"code\": ' > \"$SVP_RESULT\"",
    ] {
        let run = fixture
            .run(&format!("echo two >> file.txt; {command}"))
            .await;
        assert_eq!(run["code"], "codemod-result-invalid", "{command}: {run}");
    }
}

#[tokio::test]
async fn codes_of_scripts_are_no_fault_of_the_worker() {
    let mut fixture = WorkerFixture::with_settings("[workers]\nquarantine_after = 1\n").await;
    for (code, stored) in [
        ("worker-failure", "codemod-worker-failure"),
        ("run-disappeared", "codemod-run-disappeared"),
        ("nothing-new-to-do", "nothing-to-do"),
        ("two words\\n", "command-failed"),
        ("", "command-failed"),
    ] {
        let script = format!(
            "printf '%s' '{{\"code\": \"{code}\", \"stage\": [\"a\", \"b\"]}}' > \"$SVP_RESULT\"; exit 1"
        );
        let run = fixture.run(&script).await;
        assert_eq!(run["code"], stored, "{run}");
        assert_eq!(run["failure_stage"], "codemod/a/b", "{run}");
    }
}

#[tokio::test]
async fn odd_names_of_artifacts_are_made_safe() {
    let mut fixture = WorkerFixture::start().await;
    let long = "y".repeat(251);
    let script = with_change(&format!(
        r#"echo 1 > 'back\slash'; echo 2 > "new
line"; echo 3 > "$(printf 'latin\351')"; echo 4 > '{long}.deb'; echo 5 > worker.log; echo 6 > result.json; echo 7 > 'quo"te;x=y%41'; echo 8 > plain; echo 9 > gen.patch; echo 10 > 'ä b'"#
    ));
    let run = fixture.run(&script).await;
    assert_eq!(run["code"], "success", "{run}");
    let names = fixture.artifacts(&run);
    assert_eq!(names.len(), 10, "{names:?}");
    for (name, content) in [
        ("back%5Cslash", "1\n"),
        ("new%0Aline", "2\n"),
        ("latin%E9", "3\n"),
        ("artifact-result.json", "6\n"),
        ("quo%22te;x=y%41", "7\n"),
        ("plain", "8\n"),
        ("artifact-gen.patch", "9\n"),
        ("ä b", "10\n"),
    ] {
        assert!(names.contains(&name.to_owned()), "{name:?} in {names:?}");
        assert_eq!(
            String::from_utf8(fixture.artifact(&run, name)).unwrap(),
            content,
            "{name}"
        );
    }
    let cut = names.iter().find(|name| name.starts_with("yyy")).unwrap();
    assert!(cut.len() <= 200, "{cut}");
    let extension = std::path::Path::new(cut).extension();
    assert_eq!(extension.unwrap(), "deb", "{cut}");
    let logs = run["logfilenames"].as_array().unwrap();
    assert!(logs.contains(&json!("artifact-worker.log")), "{logs:?}");
    assert!(fixture.log(&run).await.contains("latin%E9"));
}

#[tokio::test]
async fn what_is_no_file_is_left_out_and_named() {
    let mut fixture = WorkerFixture::start().await;
    for (command, name) in [
        ("mkfifo pipe", "pipe"),
        ("ln -s /etc/hostname link", "link"),
        ("mkdir folder; echo x > folder/x", "folder"),
        (
            "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")'",
            "sock",
        ),
        ("mknod null c 1 3", "null"),
    ] {
        let run = fixture
            .run(&with_change(&format!("{command}; echo x > kept")))
            .await;
        assert_eq!(run["code"], "artifact-invalid", "{name}: {run}");
        assert!(run["description"].as_str().unwrap().contains(name), "{run}");
        assert!(run["revision"].is_string(), "{run}");
        assert!(fixture.log(&run).await.contains(name));
        assert_eq!(fixture.artifacts(&run), ["gen.patch", "kept"], "{name}");
    }
}

#[tokio::test]
async fn folders_that_a_codemod_removes_or_replaces_lose_no_run() {
    let mut fixture = WorkerFixture::start().await;
    for command in [
        "rm -r \"$OUTPUT_DIRECTORY\"",
        "rm -r \"$OUTPUT_DIRECTORY\"; ln -s /etc \"$OUTPUT_DIRECTORY\"",
        "rm -r \"$OUTPUT_DIRECTORY/../logs\"",
        "rm \"$OUTPUT_DIRECTORY/../logs/worker.log\"; mkfifo \"$OUTPUT_DIRECTORY/../logs/worker.log\"",
        "ln -sf /etc/hostname \"$OUTPUT_DIRECTORY/../logs/other.log\"",
        "rm -r \"$OUTPUT_DIRECTORY\"/..",
        "rm -r .git",
        "rm -r .git; ln -s ../../../repository/.git .git",
    ] {
        let source = fixture.harness.path("repository");
        let before = git(&source, &["rev-parse", "HEAD"]);
        let run = fixture
            .run(&format!("echo two >> file.txt; {command}"))
            .await;
        assert!(run["code"].is_string(), "{command}: {run}");
        let log = fixture.log(&run).await;
        assert!(log.contains("result: "), "{command}: {log}");
        assert!(
            fixture
                .artifacts(&run)
                .iter()
                .all(|name| name == "gen.patch")
        );
        assert_eq!(git(&source, &["rev-parse", "HEAD"]), before, "{command}");
        if command.contains(".git") {
            assert_eq!(run["code"], "vcs-damaged", "{run}");
        }
    }
}

#[tokio::test]
async fn refused_upload_ends_in_a_stored_failure_that_names_the_file() {
    let mut fixture = WorkerFixture::with_settings("[limits]\nupload_file = \"64 KiB\"\n").await;
    for size in ["100K", "64M"] {
        let run = fixture
            .run(&with_change(&format!(
                "head -c {size} /dev/urandom > big.bin"
            )))
            .await;
        assert_eq!(run["code"], "artifact-invalid", "{run}");
        assert!(
            run["description"].as_str().unwrap().contains("big.bin"),
            "{run}"
        );
        assert!(fixture.log(&run).await.contains("file.txt"));
    }
}

#[tokio::test]
async fn log_over_the_limit_is_cut() {
    let mut fixture = WorkerFixture::with_settings("[limits]\nupload_file = \"3 MiB\"\n").await;
    let run = fixture
        .run(&with_change(
            "echo first; head -c 9000000 /dev/zero | tr '\\0' '.'",
        ))
        .await;
    // The runner cuts the log, and the result counts.
    assert_eq!(run["code"], "success", "{run}");
    let log = fixture.log(&run).await;
    assert!(log.contains("first"), "the beginning is missing");
    assert!(log.len() <= (3 << 20) + 1000, "{} bytes", log.len());
}
