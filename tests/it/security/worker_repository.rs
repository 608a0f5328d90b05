//! Codemods that put another repository in the place of their checkout's.

use crate::{
    server::worker_fixture::WorkerFixture,
    support::worker_harness::{git, repository},
};

/// Runs codemods that damage their repository, below a repository of the operator's; nothing of
/// them may be committed there or pushed.
async fn damages(commands: &[&str]) {
    let mut fixture = WorkerFixture::start().await;
    let outer = fixture.harness.path("outer");
    repository(&outer);
    let other = fixture.harness.path("other");
    repository(&other);
    // So that it has another history than the codebase's.
    git(&other, &["commit", "--quiet", "--amend", "-m", "Other"]);
    let tip = git(&outer, &["rev-parse", "HEAD"]);
    for command in commands {
        let command = command.replace("OTHER", &other.display().to_string());
        let script = format!("echo two >> file.txt; {command}; true");
        let run = fixture
            .run_with(&script, |worker| {
                worker.arg("--work-dir").arg(outer.join("work"));
            })
            .await;
        assert_eq!(run["code"], "vcs-damaged", "{command}: {run}");
        let codebase = run["codebase"].as_str().unwrap();
        assert!(!fixture.pushed(codebase).exists(), "{command}");
        assert_eq!(git(&outer, &["rev-parse", "HEAD"]), tip, "{command}");
        assert_eq!(git(&other, &["status", "--porcelain"]), "", "{command}");
    }
}

#[tokio::test]
async fn replaced_repository_ends_the_run() {
    damages(&[
        "rm -rf .git",
        "rm -rf .git; git init -q",
        "rm -rf .git; ln -s OTHER/.git .git",
        "rm -rf .git; echo 'gitdir: OTHER/.git' > .git",
        "rm -rf .git; cp -r OTHER/.git .git",
        "rm -rf .git/objects; ln -s OTHER/.git/objects .git/objects",
        "rm -rf .git/refs; cp -r OTHER/.git/refs .git/refs",
        "ln -sf OTHER/.git/HEAD .git/HEAD",
    ])
    .await;
}

#[tokio::test]
async fn objects_and_history_of_others_end_the_run() {
    damages(&[
        "echo OTHER/.git/objects > .git/objects/info/alternates",
        "echo OTHER/.git > .git/commondir",
        "git rev-parse HEAD > .git/shallow",
        "git fetch -q OTHER HEAD && git reset -q --hard FETCH_HEAD",
        "git checkout -q --orphan fresh && git commit -q -a -m fresh",
        "git fetch -q OTHER HEAD && git replace -f HEAD FETCH_HEAD; git checkout -q --detach FETCH_HEAD",
        "rm .git/index; mkfifo .git/index",
    ])
    .await;
}

#[tokio::test]
async fn programs_in_the_configuration_of_the_checkout_are_not_run() {
    let mut fixture = WorkerFixture::start().await;
    let ran = fixture.harness.path("ran");
    let program = format!("touch {}; cat", ran.display());
    for damage in [
        "git config filter.x.clean 'RUN'; git config filter.x.smudge 'RUN'; echo '* filter=x' > .gitattributes",
        "git config filter.x.process 'RUN'; git config filter.x.required true; echo '* filter=x' > .git/info/attributes",
        "git config diff.x.textconv 'RUN'; git config diff.x.command 'RUN'; echo '* diff=x' > .gitattributes",
        "git config core.alternateRefsCommand 'RUN'; git config credential.helper '!RUN'",
        "printf '[include]\\n\\tpath = more\\n' >> .git/config; printf '[core]\\n\\tfsmonitor = RUN\\n[filter \"x\"]\\n\\tclean = RUN\\n' > .git/more; echo '* filter=x' > .gitattributes",
        "git config extensions.worktreeConfig true; printf '[filter \"x\"]\\n\\tclean = RUN\\n' > .git/config.worktree; echo '* filter=x' > .gitattributes",
        "rm .git/config; mkfifo .git/config",
    ] {
        let damage = damage.replace("RUN", &program);
        let script = format!("mkdir -p .git/info; echo two >> file.txt; {damage}; true");
        let run = fixture.run(&script).await;
        assert_eq!(run["code"], "success", "{damage}: {run}");
        assert!(!ran.exists(), "{damage}");
    }
}

#[tokio::test]
async fn build_cannot_change_what_is_pushed() {
    let mut fixture = WorkerFixture::start().await;
    let build = "echo three >> file.txt; git commit -q -a -m build";
    let run = fixture
        .run_with("echo two >> file.txt", |worker| {
            worker.args(["--build-command", build]);
        })
        .await;
    assert_eq!(run["code"], "success", "{run}");
    let pushed = fixture.pushed(run["codebase"].as_str().unwrap());
    let tip = git(&pushed, &["rev-parse", "gen/main"]);
    assert_eq!(tip, run["revision"].as_str().unwrap());
}
