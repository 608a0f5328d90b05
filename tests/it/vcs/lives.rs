//! The life of a campaign's branch, with the bundled worker: it is pushed, resumed, rebased, started
//! afresh, and not resumed when that is not wanted.

use crate::{
    server::worker_fixture::{WorkerFixture, end_of},
    support::{for_each_store, worker_harness::git},
};
use serde_json::{Value, json};
use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

/// Adds a line once, and says what it resumes.
const SCRIPT: &str = "cat \"${SVP_RESUME:-/dev/null}\"; \
    grep -q campaign file.txt || echo campaign >> file.txt; \
    echo '{\"description\": \"Add a line\", \"context\": {\"lines\": 1}}' > \"$SVP_RESULT\"";

struct Life {
    fixture: WorkerFixture,
    codebase: String,
    /// The user of the codemods, if that is not the worker's.
    run_as: Option<&'static str>,
}

impl Life {
    async fn start(kind: &str) -> Self {
        Self::of_script(kind, SCRIPT).await
    }

    async fn of_script(kind: &str, script: &str) -> Self {
        let mut fixture = WorkerFixture::with_store(kind, "").await;
        let codebase = fixture.queue(script).await;
        Self {
            fixture,
            codebase,
            run_as: None,
        }
    }

    /// Runs the item that is queued, and returns the run.
    async fn run(&self) -> Value {
        self.run_by(|_| {}).await
    }

    /// Runs the item that is queued by a worker that `change` changes.
    async fn run_by(&self, change: impl FnOnce(&mut Command)) -> Value {
        let mut worker = self.fixture.worker();
        change(&mut worker);
        worker.args(["--codebase", &self.codebase]);
        worker.args(self.run_as.map(|user| format!("--run-as={user}")));
        let output = end_of(worker).await;
        assert!(output.status.success(), "{}", self.fixture.worker_log());
        let server = &self.fixture.harness.server;
        let runs = server.get("/runs?limit=1").await.1;
        let id = runs[0]["log_id"].as_str().unwrap();
        server.get(&format!("/runs/{id}?full=1")).await.1
    }

    /// Asks for another run, and runs it.
    async fn run_again(&self, more: &Value) -> Value {
        let mut request = json!({ "codebase": self.codebase, "campaign": "gen" });
        for (key, value) in more.as_object().unwrap() {
            request[key] = value.clone();
        }
        let server = &self.fixture.harness.server;
        let (status, scheduled) = server.post("/schedule", &request).await;
        assert_eq!(status, 200, "{scheduled}");
        self.run().await
    }

    /// Changes a file on the main branch.
    fn commit(&self, file: &str, content: &str) {
        let repository = self.fixture.harness.path("repository");
        std::fs::write(repository.join(file), content).unwrap();
        git(&repository, &["add", "--all"]);
        git(&repository, &["commit", "--quiet", "--message", "Move on"]);
    }

    fn main(&self) -> String {
        git(
            &self.fixture.harness.path("repository"),
            &["rev-parse", "HEAD"],
        )
    }

    /// What the campaign's branch has in a file.
    fn pushed(&self, file: &str) -> String {
        let repository = self.fixture.pushed(&self.codebase);
        git(&repository, &["show", &format!("gen/main:{file}")])
    }
}

impl Life {
    /// The revision of the campaign's branch.
    fn pushed_tip(&self) -> String {
        let repository = self.fixture.pushed(&self.codebase);
        git(&repository, &["rev-parse", "gen/main"])
    }
}

fn id(run: &Value) -> &str {
    run["log_id"].as_str().unwrap()
}

fn ids(runs: &Value) -> Vec<&str> {
    runs.as_array().unwrap().iter().map(id).collect()
}

async fn campaign_branch_is_resumed_rebased_and_started_afresh(kind: &str) {
    let life = Life::start(kind).await;
    let first = life.run().await;
    assert_eq!(first["code"], "success", "{first}");
    assert_eq!(life.pushed("file.txt"), "one\ncampaign");

    let second = life.run_again(&json!({})).await;
    assert_eq!(second["code"], "nothing-new-to-do", "{second}");
    assert_eq!(second["resume"]["run_id"], first["log_id"], "{second}");
    let log = life.fixture.log(&second).await;
    assert!(
        log.contains("\"lines\""),
        "SVP_RESUME has the result: {log}"
    );

    // The branch moves on elsewhere: what the campaign did is put on top of that.
    life.commit("other.txt", "two\n");
    let third = life.run_again(&json!({})).await;
    assert_eq!(third["code"], "success", "{third}");
    assert_eq!(third["resume"]["run_id"], first["log_id"], "{third}");
    assert_eq!(third["branches"][0][2], life.main(), "the base");
    assert_eq!(life.pushed("file.txt"), "one\ncampaign");
    assert_eq!(life.pushed("other.txt"), "two");
    let fourth = life.run_again(&json!({})).await;
    assert_eq!(fourth["code"], "nothing-new-to-do", "{fourth}");
    assert_eq!(fourth["resume"]["run_id"], third["log_id"], "{fourth}");

    let server = &life.fixture.harness.server;
    let (status, chain) = server.get(&format!("/resume/chain/{}", id(&fourth))).await;
    assert_eq!(status, 200, "{chain}");
    assert_eq!(ids(&chain["chain"]), [id(&third), id(&first)]);
    let path = format!("/resume/descendants/{}", id(&first));
    let below = server.get(&path).await.1;
    assert_eq!(ids(&below["descendants"]), [id(&second), id(&third)]);
    let after = server
        .get(&format!("{path}?cursor={}", id(&second)))
        .await
        .1;
    assert_eq!(ids(&after["descendants"]), [id(&third)]);
    let page = server.get("/resume/validate").await.1;
    assert_eq!(
        (&page["status"], &page["checked"]),
        (&json!("consistent"), &json!(3))
    );

    // It changes the same line: the campaign starts afresh.
    life.commit("file.txt", "uno\n");
    let fifth = life.run_again(&json!({})).await;
    assert_eq!(fifth["code"], "success", "{fifth}");
    assert_eq!(fifth["resume"], Value::Null, "{fifth}");
    assert_eq!(life.pushed("file.txt"), "uno\ncampaign");
}

async fn run_is_not_resumed_when_it_is_rejected_or_refreshed(kind: &str) {
    let life = Life::start(kind).await;
    let first = life.run().await;
    // The schedule that follows the run would take the place of what is asked for before it.
    let server = &life.fixture.harness.server;
    server.queued_are(&[&life.codebase]).await;
    let refreshed = life.run_again(&json!({ "refresh": true })).await;
    assert_eq!(refreshed["resume"], Value::Null, "{refreshed}");
    assert_eq!(refreshed["code"], "success", "{refreshed}");
    // Both made the same change, but at another time.
    for run in [&first, &refreshed] {
        let path = format!("/runs/{}", id(run));
        let (status, changed) = server
            .post(&path, &json!({ "publish_status": "rejected" }))
            .await;
        assert_eq!(status, 200, "{changed}");
    }
    let next = life.run_again(&json!({})).await;
    assert_eq!(next["resume"], Value::Null, "{next}");
    assert_eq!(next["code"], "success", "{next}");
}

async fn merged_result_is_nothing_to_do(kind: &str) {
    let life = Life::start(kind).await;
    let first = life.run().await;
    assert_eq!(first["code"], "success", "{first}");
    // As a forge does: the same change in another commit, and more after it.
    life.commit("file.txt", "one\ncampaign\n");
    life.commit("other.txt", "two\n");
    let before = life.pushed_tip();
    let second = life.run_again(&json!({})).await;
    assert_eq!(second["code"], "nothing-to-do", "{second}");
    assert_eq!(second["revision"], json!(life.main()), "{second}");
    assert_eq!(life.pushed_tip(), before, "nothing is pushed");
}

for_each_store!(
    merged_result_is_nothing_to_do,
    campaign_branch_is_resumed_rebased_and_started_afresh,
    run_is_not_resumed_when_it_is_rejected_or_refreshed,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn codemods_of_another_user_resume_too() {
    let life = Life {
        run_as: Some("nobody"),
        ..Life::start("memory:").await
    };
    // Whatever the mask of this process is.
    let home = life.fixture.harness.home.path();
    std::fs::set_permissions(home, PermissionsExt::from_mode(0o755)).unwrap();
    let first = life.run().await;
    assert_eq!(first["code"], "success", "{first}");
    let second = life.run_again(&json!({})).await;
    assert_eq!(second["code"], "nothing-new-to-do", "{second}");
    life.commit("other.txt", "two\n");
    let third = life.run_again(&json!({})).await;
    assert_eq!(third["code"], "success", "{third}");
    assert_eq!(third["resume"]["run_id"], first["log_id"], "{third}");
    assert_eq!(life.pushed("other.txt"), "two");
}

/// Lets the git of a worker find another tip on a branch than the one that was probed.
fn moving_before_fetch(worker: &mut Command, folder: &Path, repository: &Path) {
    let path = std::env::var("PATH").unwrap();
    let real = std::env::split_paths(&path)
        .map(|folder| folder.join("git"))
        .find(|git| git.exists())
        .unwrap();
    let (real, repository) = (real.display(), repository.display());
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *' fetch '*)\n\
         tip=$({real} -C {repository} -c user.name=x -c user.email=x commit-tree -m odd \
         -p gen/main 'gen/main^{{tree}}')\n\
         {real} -C {repository} update-ref refs/heads/gen/main $tip;; esac\n\
         exec {real} \"$@\"\n"
    );
    let wrapper = folder.join("git");
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, PermissionsExt::from_mode(0o755)).unwrap();
    worker.env("PATH", format!("{}:{path}", folder.display()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branch_that_others_have_changed_meanwhile_is_not_resumed() {
    let life = Life::start("memory:").await;
    let first = life.run().await;
    let folder = tempfile::tempdir().unwrap();
    let pushed = life.fixture.pushed(&life.codebase);
    let request = json!({ "codebase": life.codebase, "campaign": "gen" });
    let server = &life.fixture.harness.server;
    let (status, scheduled) = server.post("/schedule", &request).await;
    assert_eq!(status, 200, "{scheduled}");
    let second = life
        .run_by(|worker| moving_before_fetch(worker, folder.path(), &pushed))
        .await;
    let log = life.fixture.log(&second).await;
    assert!(log.contains("the branch to resume is at"), "{log}");
    assert_eq!(second["code"], "success", "{second}");
    assert_eq!(second["resume"], Value::Null, "{second}");
    assert_ne!(second["log_id"], first["log_id"]);
    let repository = life.fixture.pushed(&life.codebase);
    let log = git(&repository, &["log", "--format=%s", "gen/main"]);
    assert!(!log.contains("odd"), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn result_that_cannot_be_checked_out_is_not_resumed() {
    // git refuses this name where it comes from elsewhere.
    let script = "echo x > 'git~1' && git -c core.protectNTFS=false add 'git~1' \
        && git -c core.protectNTFS=false commit --quiet --message odd \
        && git update-index --skip-worktree 'git~1'; echo '{}' > \"$SVP_RESULT\"";
    let life = Life::of_script("memory:", script).await;
    let first = life.run().await;
    assert_eq!(first["code"], "success", "{first}");
    let second = life.run_again(&json!({})).await;
    let log = life.fixture.log(&second).await;
    assert_eq!(second["code"], "success", "{second} {log}");
    assert_eq!(second["resume"], Value::Null, "{second}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copy_in_the_vcs_store_is_used_when_the_branch_cannot_be_cloned() {
    let life = Life::start("memory:").await;
    let repository = life.fixture.harness.path("repository");
    let copy = life.fixture.pushed(&life.codebase);
    let copy = copy.to_str().unwrap();
    git(&repository, &["clone", "--quiet", "--bare", ".", copy]);
    std::fs::rename(&repository, life.fixture.harness.path("gone")).unwrap();
    let run = life.run().await;
    assert_eq!(run["code"], "success", "{run}");
    let log = life.fixture.log(&run).await;
    assert!(log.contains("trying its copy in the VCS store"), "{log}");
    assert_eq!(life.pushed("file.txt"), "one\ncampaign");
}
