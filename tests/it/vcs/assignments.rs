//! Assignments of codebases on forges: what a probe finds, and hosts that limit the rate of requests.

use crate::support::{
    for_each_store,
    git_server::GitServer,
    process::{Server, send},
    worker_harness::{git, repository, store},
};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

/// A server, and a forge that has the repository `x.git`.
struct Place {
    server: Server,
    forge: GitServer,
    home: TempDir,
}

impl Place {
    async fn start(kind: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let repositories = home.path().join("repositories");
        std::fs::create_dir(&repositories).unwrap();
        repository(&repositories.join("work"));
        git(
            &repositories,
            &["clone", "--quiet", "--bare", "work", "x.git"],
        );
        let forge = GitServer::start(&repositories).await;
        let store = store(kind, home.path()).await;
        let server = Server::start(home.path(), &store, "public_vcs_location = \"\"\n").await;
        Self {
            server,
            forge,
            home,
        }
    }

    /// Adds a codebase at a URL with an item in the queue.
    async fn queue(&self, name: &str, url: &str) {
        let codebase = json!([{ "name": name, "url": url }]);
        let (status, stored) = self.server.post("/codebases", &codebase).await;
        assert_eq!(status, 200, "{stored}");
        let candidate = json!([{ "codebase": name, "campaign": "gen", "command": "true" }]);
        let (status, stored) = self.server.post("/candidates", &candidate).await;
        assert_eq!(status, 200, "{stored}");
        self.server
            .until("/queue?limit=100", |queue| {
                let queued = queue.as_array().unwrap();
                queued.iter().any(|item| item["codebase"] == name)
            })
            .await;
    }

    async fn claim(&self) -> (u16, Value) {
        self.server.post("/active-runs", &json!({})).await
    }

    /// The URL of the forge by another name of this machine, which makes it another host.
    fn localhost(&self) -> String {
        self.forge.url.replace("127.0.0.1", "localhost")
    }

    fn tip(&self) -> String {
        git(
            &self.home.path().join("repositories/x.git"),
            &["rev-parse", "HEAD"],
        )
    }
}

async fn assignment_has_what_the_probe_found(kind: &str) {
    let place = Place::start(kind).await;
    place
        .queue("aa", &format!("{}/moved/x.git", place.forge.url))
        .await;
    let (status, assignment) = place.claim().await;
    assert_eq!(status, 201, "{assignment}");
    let branch = &assignment["branch"];
    assert_eq!(branch["url"], format!("{}/v2/x.git", place.forge.url));
    assert_eq!(branch["vcs_type"], "git");
    assert_eq!(branch["additional_colocated_branches"], Value::Null);
    let runs = place.server.get("/active-runs").await.1;
    assert_eq!(runs[0]["vcs"]["branch_url"], branch["url"], "{runs}");
    assert!(!place.tip().is_empty());
}

async fn branch_that_cannot_be_probed_is_assigned_as_it_is_stored(kind: &str) {
    let place = Place::start(kind).await;
    for (number, mode) in [
        "status-404",
        "status-401",
        "status-500",
        "garbage",
        "loop",
        "page",
    ]
    .iter()
    .enumerate()
    {
        let (name, url) = (
            format!("c{number}"),
            format!("{}/{mode}/x", place.forge.url),
        );
        place.queue(&name, &url).await;
        let (status, assignment) = place.claim().await;
        assert_eq!(status, 201, "{mode}: {assignment}");
        assert_eq!(assignment["branch"]["url"], url, "{mode}");
    }
    assert_eq!(place.server.get("/runs").await.1, json!([]));
}

async fn rate_limited_host_keeps_its_items_and_others_go_on(kind: &str) {
    let place = Place::start(kind).await;
    let limited = format!("{}/status-429-retry-after-600/x", place.localhost());
    place.queue("aa", &limited).await;
    place.queue("bb", &limited).await;
    let before = place.server.get("/queue?limit=10").await.1;
    place
        .queue("cc", &format!("{}/v2/x.git", place.forge.url))
        .await;
    let (status, assignment) = place.claim().await;
    assert_eq!(
        (status, &assignment["codebase"]),
        (201, &json!("cc")),
        "{assignment}"
    );

    // Nothing else is left.
    assert_eq!(place.claim().await.0, 503);

    // The items are where they were, no run was stored, and the host was asked once.
    assert_eq!(place.server.get("/queue?limit=2").await.1, before);
    assert_eq!(place.server.get("/runs").await.1, json!([]));
    let seen = place.forge.seen();
    let asked = seen
        .iter()
        .filter(|seen| seen.path.starts_with("/status-429"))
        .count();
    assert_eq!(asked, 1, "{seen:?}");
    let status = place.server.get("/status").await.1;
    assert!(
        status["rate_limit_hosts"]["localhost"].is_string(),
        "{status}"
    );

    // Cleared by hand, it is asked again.
    let path = "/limits/hosts/LocalHost.";
    let cleared = send(place.server.request("DELETE", path)).await;
    assert_eq!(cleared.0, 204, "{cleared:?}");
    assert_eq!(send(place.server.request("DELETE", path)).await.0, 404);
    let response = place.server.request("POST", "/active-runs");
    let response = response.json(&json!({})).send().await.unwrap();
    assert_eq!(response.status(), 429);
    let after = response.headers()["retry-after"].to_str().unwrap();
    assert!(
        (1..=600).contains(&after.parse::<u32>().unwrap()),
        "{after}"
    );
    let seen = place.forge.seen();
    let asked = seen
        .iter()
        .filter(|seen| seen.path.starts_with("/status-429"))
        .count();
    assert_eq!(asked, 2, "{seen:?}");
}

async fn passed_pause_frees_the_items(kind: &str) {
    let place = Place::start(kind).await;
    let url = format!("{}/status-503-retry-after-1/x", place.localhost());
    place.queue("aa", &url).await;
    assert_eq!(place.claim().await.0, 429);
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert_eq!(
        place.claim().await.0,
        429,
        "it is asked again, and limits again"
    );
    let seen = place.forge.seen();
    assert_eq!(seen.len(), 2, "{seen:?}");
}

for_each_store!(
    assignment_has_what_the_probe_found,
    branch_that_cannot_be_probed_is_assigned_as_it_is_stored,
    rate_limited_host_keeps_its_items_and_others_go_on,
    passed_pause_frees_the_items,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn colocated_branches_have_both_shapes() {
    let home = tempfile::tempdir().unwrap();
    let work = home.path().join("work");
    repository(&work);
    for branch in ["pristine-tar", "upstream", "patch-queue/main", "other"] {
        git(&work, &["branch", branch]);
    }
    let server = debian_server(home.path(), &work).await;
    let (status, older) = server.post("/active-runs", &json!({})).await;
    let runs = server.get("/runs").await.1;
    assert_eq!(status, 201, "{older}, {runs}");
    assert_eq!(
        older["branch"]["additional_colocated_branches"],
        json!({
            "patch-queue/main": "patch-queue", "pristine-tar": "pristine-tar",
            "upstream": "upstream"
        }),
        "{older}"
    );
    let (_, newer) = server.post("/active-runs", &json!({ "node": "n1" })).await;
    assert_eq!(
        newer["branch"]["additional_colocated_branches"],
        json!(["patch-queue/main", "pristine-tar", "upstream"]),
        "{newer}"
    );
}

/// A server with two items of a campaign that builds Debian packages of a repository.
async fn debian_server(home: &Path, work: &Path) -> Server {
    let settings = "[[distribution]]\nname = \"unstable\"\ncomponent = [\"main\"]\n\
        [[campaign]]\nname = \"deb\"\ncommand = \"true\"\n\
        debian_build = { base_distribution = \"unstable\" }\n";
    let server = Server::start(home, "memory:", settings).await;
    for name in ["aa", "bb"] {
        let url = format!("file://{}", work.display());
        let codebase = json!([{ "name": name, "url": url, "subpath": name }]);
        assert_eq!(server.post("/codebases", &codebase).await.0, 200);
        let candidate = json!([{ "codebase": name, "campaign": "deb", "command": "true" }]);
        assert_eq!(server.post("/candidates", &candidate).await.0, 200);
    }
    server.queued_are(&["aa", "bb"]).await;
    server
}
