//! A user's git configuration and environment, and passwords in URLs.

use super::worker_fixture::WorkerFixture;
use crate::support::worker_harness::git;
use serde_json::json;
use std::path::Path;

/// Writes the configuration of a user who has changed all that could get in the way.
fn user_configuration(home: &Path) {
    std::fs::create_dir_all(home.join("hooks")).unwrap();
    for program in [
        "hooks/pre-commit",
        "hooks/post-checkout",
        "fsmonitor",
        "differ",
    ] {
        let script = format!("#!/bin/sh\ntouch '{}/ran'\nexit 1\n", home.display());
        let path = home.join(program);
        std::fs::write(&path, script).unwrap();
        git(home, &["--version"]);
        std::process::Command::new("chmod")
            .arg("+x")
            .arg(path)
            .status()
            .unwrap();
    }
    std::fs::write(home.join("excludes"), "*\n").unwrap();
    std::fs::write(home.join("template"), "From the template\n").unwrap();
    let home = home.display();
    let text = format!(
        r#"
[core]
	hooksPath = {home}/hooks
	autocrlf = true
	excludesFile = {home}/excludes
	fsmonitor = {home}/fsmonitor
	worktree = {home}
[commit]
	gpgsign = true
	template = {home}/template
[status]
	showUntrackedFiles = no
[push]
	default = nothing
[url "file:///nowhere/"]
	insteadOf = file:///
[diff]
	external = {home}/differ
	noprefix = true
[color]
	ui = always
[format]
	signoff = true
	attach = true
[user]
	name = Somebody
	email = somebody@example.com
"#
    );
    std::fs::write(format!("{home}/.gitconfig"), text).unwrap();
}

#[tokio::test]
async fn configuration_of_the_user_changes_nothing() {
    let mut fixture = WorkerFixture::start().await;
    let script = r#"printf 'a\r\n' > new.txt; git add new.txt; git commit -q -m own || exit 7; echo two >> file.txt; echo '{"description": "Add"}' > "$SVP_RESULT""#;
    let plain = fixture.run(script).await;
    assert_eq!(plain["code"], "success", "{plain}");
    let home = fixture.harness.path("user");
    user_configuration(&home);
    let run = fixture
        .run_with(script, |worker| {
            worker.env("HOME", &home);
            worker.env("XDG_CONFIG_HOME", home.join("none"));
        })
        .await;
    assert_eq!(run["code"], "success", "{run}");
    let trees: Vec<String> = [&plain, &run]
        .iter()
        .map(|run| {
            let revision = format!("{}:", run["revision"].as_str().unwrap());
            let pushed = fixture.pushed(run["codebase"].as_str().unwrap());
            git(&pushed, &["rev-parse", &revision])
        })
        .collect();
    assert_eq!(trees[0], trees[1]);
    let pushed = fixture.pushed(run["codebase"].as_str().unwrap());
    let revision = run["revision"].as_str().unwrap();
    assert_eq!(
        git(&pushed, &["log", "-2", "--format=%an: %s", revision]),
        "Janitor Bot: Add\nJanitor Bot: own"
    );
    assert!(!home.join("ran").exists());
    let patch = |run| String::from_utf8(fixture.artifact(run, "gen.patch")).unwrap();
    let body = |patch: String| {
        patch
            .lines()
            .filter(|line| !line.starts_with("From ") && !line.starts_with("Date: "))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(body(patch(&plain)), body(patch(&run)));
}

#[tokio::test]
async fn git_variables_of_the_worker_lead_nowhere_else() {
    let mut fixture = WorkerFixture::start().await;
    let other = fixture.harness.path("other");
    crate::support::worker_harness::repository(&other);
    let before = git(&other, &["rev-parse", "HEAD"]);
    let script = "echo two >> file.txt; git commit -q -a -m own; echo three >> file.txt";
    let run = fixture
        .run_with(script, |worker| {
            worker
                .env("GIT_DIR", other.join(".git"))
                .env("GIT_WORK_TREE", &other)
                .env("GIT_INDEX_FILE", other.join(".git/index"))
                .env("GIT_OBJECT_DIRECTORY", other.join(".git/objects"))
                .env("GIT_CONFIG_COUNT", "1")
                .env("GIT_CONFIG_KEY_0", "commit.gpgsign")
                .env("GIT_CONFIG_VALUE_0", "true");
        })
        .await;
    assert_eq!(run["code"], "success", "{run}");
    assert_eq!(git(&other, &["rev-parse", "HEAD"]), before);
    assert_eq!(git(&other, &["status", "--porcelain"]), "");
}

#[tokio::test]
async fn configuration_that_a_codemod_leaves_in_the_checkout_runs_no_program() {
    let mut fixture = WorkerFixture::start().await;
    let ran = fixture.harness.path("ran");
    let script = format!(
        "for key in core.fsmonitor diff.external core.sshCommand core.editor gpg.program; do git config $key 'touch {0}; false'; done; git config commit.gpgsign true; git config core.worktree /tmp; git config remote.origin.pushurl ext::false; git config url.ext::.insteadOf file:; printf '#!/bin/sh\\ntouch {0}\\n' > .git/hooks/pre-commit; chmod +x .git/hooks/*; echo two >> file.txt",
        ran.display()
    );
    let run = fixture.run(&script).await;
    assert!(!ran.exists(), "{run}");
    assert_eq!(run["codemod"], json!(null));
}

#[tokio::test]
async fn command_protocols_are_refused() {
    let mut fixture = WorkerFixture::start().await;
    let ran = fixture.harness.path("ran");
    let codebase = fixture.queue("true").await;
    let url = format!("ext::sh -c touch% {}", ran.display());
    let uploaded = fixture
        .harness
        .server
        .post(
            "/codebases",
            &json!([{ "name": codebase, "branch_url": url, "vcs_type": "git" }]),
        )
        .await;
    assert_eq!(uploaded.0, 200, "{uploaded:?}");
    let output = super::worker_fixture::end_of(fixture.worker()).await;
    assert!(output.status.success());
    let run = fixture.stored(&codebase).await;
    assert_eq!(run["code"], "clone-failed", "{run}");
    assert!(!ran.exists());
}

#[tokio::test]
async fn passwords_in_urls_stay_out_of_everything() {
    let mut fixture = WorkerFixture::start().await;
    // Stands in for git, to see its arguments.
    let bin = fixture.harness.path("bin");
    std::fs::create_dir(&bin).unwrap();
    let seen = fixture.harness.path("seen");
    let wrapper = format!(
        "#!/bin/sh\nprintf '%s\\n' \"$*\" >> '{}'\nexec /usr/bin/git \"$@\"\n",
        seen.display()
    );
    std::fs::write(bin.join("git"), wrapper).unwrap();
    std::process::Command::new("chmod")
        .arg("+x")
        .arg(bin.join("git"))
        .status()
        .unwrap();
    let codebase = fixture.queue("true").await;
    let port = crate::support::process::free_port();
    let url = format!("http://user:hunter2@127.0.0.1:{port}/x.git");
    let uploaded = fixture
        .harness
        .server
        .post(
            "/codebases",
            &json!([{ "name": codebase, "branch_url": url, "vcs_type": "git" }]),
        )
        .await;
    assert_eq!(uploaded.0, 200, "{uploaded:?}");
    let mut worker = fixture.worker();
    worker.args(["--codebase", &codebase]);
    let path = std::env::var("PATH").unwrap();
    worker.env("PATH", format!("{}:{path}", bin.display()));
    super::worker_fixture::end_of(worker).await;
    let run = fixture.stored(&codebase).await;
    assert_eq!(run["code"], "clone-failed", "{run}");
    let log = fixture.log(&run).await;
    assert!(log.contains("127.0.0.1"), "{log}");
    assert!(!log.contains("hunter2"), "{log}");
    assert!(!run.to_string().contains("hunter2"), "{run}");
    let arguments = std::fs::read_to_string(seen).unwrap();
    assert!(arguments.contains("clone"), "{arguments}");
    assert!(!arguments.contains("hunter2"), "{arguments}");

    let script = r#"echo two >> file.txt; echo '{"description": "From https://me:hunter2@host/x"}' > "$SVP_RESULT""#;
    let run = fixture.run(script).await;
    assert_eq!(run["code"], "success", "{run}");
    assert_eq!(run["description"], "From https://host/x");
    let patch = String::from_utf8(fixture.artifact(&run, "gen.patch")).unwrap();
    assert!(patch.contains("https://host/x"), "{patch}");
    assert!(!patch.contains("hunter2"), "{patch}");
}

#[tokio::test]
async fn password_in_a_url_is_used_for_its_host() {
    let mut fixture = WorkerFixture::start().await;
    let (port, mut authorization) = unauthorized_server().await;
    let codebase = fixture.queue("true").await;
    let url = format!("http://user:p%40ss@127.0.0.1:{port}/x.git");
    fixture
        .harness
        .server
        .post(
            "/codebases",
            &json!([{ "name": codebase, "branch_url": url, "vcs_type": "git" }]),
        )
        .await;
    super::worker_fixture::end_of(fixture.worker()).await;
    let mut seen = vec![];
    while let Ok(header) = authorization.try_recv() {
        seen.push(header);
    }
    // user:p@ss
    assert!(
        seen.iter().any(|header| header == "Basic dXNlcjpwQHNz"),
        "{seen:?}"
    );
}

/// A server that refuses all requests; returns its port and the credentials of each.
async fn unauthorized_server() -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    use axum::http::{HeaderMap, StatusCode, header};
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    let router = axum::Router::new().fallback(move |headers: HeaderMap| {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        sender.send(given.to_owned()).unwrap();
        async {
            (
                StatusCode::UNAUTHORIZED,
                [(header::WWW_AUTHENTICATE, "Basic realm=\"x\"")],
            )
        }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, router).await });
    (port, receiver)
}
