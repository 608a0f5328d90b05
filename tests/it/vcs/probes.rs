//! `BranchProber`, on repositories behind real servers.

use crate::support::{
    git_server::GitServer,
    process::free_port,
    worker_harness::{Worker, git, repository},
};
use chrono::TimeDelta;
use janitor_runner::{
    adapters::{
        clock::SystemClock,
        support::guarded_http::{GuardedClient, GuardedHttpSettings},
        vcs::{BranchProber, HostLogin, ProbeSettings},
    },
    domain::{
        branch_query::{BranchQuery, FoundBranches},
        host::HostPattern,
        vcs::VcsType,
    },
    ports::{Vcs, vcs::Probe},
};
use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A repository with several branches, and the revision of each.
struct Repositories {
    home: TempDir,
    main: String,
    sid: String,
}

impl Repositories {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let work = home.path().join("work");
        repository(&work);
        let main = git(&work, &["rev-parse", "HEAD"]);
        git(&work, &["checkout", "--quiet", "-b", "debian/sid"]);
        git(
            &work,
            &["commit", "--quiet", "--allow-empty", "--message", "More"],
        );
        let sid = git(&work, &["rev-parse", "HEAD"]);
        for branch in [
            "pristine-tar",
            "upstream/sid",
            "upstream/bookworm",
            "patch-queue/main",
            "patch-queue/debian/sid",
            "gen/main",
        ] {
            git(&work, &["branch", branch, "main"]);
        }
        git(
            &work,
            &["tag", "--annotate", "--message", "One", "v1", "main"],
        );
        git(&work, &["checkout", "--quiet", "main"]);
        let bare = home.path().join("x.git");
        git(
            home.path(),
            &["clone", "--quiet", "--bare", "work", "x.git"],
        );
        git(&bare, &["update-server-info"]);
        git(home.path(), &["init", "--quiet", "--bare", "empty.git"]);
        Self { home, main, sid }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }
}

pub(super) fn settings() -> ProbeSettings {
    ProbeSettings {
        allowed_hosts: vec![HostPattern::new("127.0.0.1")],
        logins: vec![],
        ssh_command: None,
    }
}

pub(super) fn prober_with(settings: ProbeSettings, networks: &[&str]) -> BranchProber {
    janitor_runner::tls::install();
    let http = GuardedHttpSettings {
        timeout: Duration::from_secs(10),
        stall_timeout: Duration::from_secs(10),
        transfer_timeout: Duration::from_secs(10),
        allowed_networks: networks
            .iter()
            .map(|network| network.parse().unwrap())
            .collect(),
        user_agent: "test".into(),
    };
    let http = GuardedClient::new(http).unwrap();
    BranchProber::new(http, Arc::new(SystemClock), settings)
}

fn prober() -> BranchProber {
    prober_with(settings(), &["127.0.0.0/8"])
}

async fn probe(url: &str) -> Probe {
    let query = BranchQuery::of_branch(url, None).unwrap();
    prober().probe(&query).await
}

async fn found(url: &str) -> FoundBranches {
    match probe(url).await {
        Probe::Found(found) => found,
        other => panic!("{url}: {other:?}"),
    }
}

fn is_unknown(probe: &Probe, reason: &str) -> bool {
    matches!(probe, Probe::Unknown(why) if why.contains(reason))
}

/// Checks everything that can be asked of the repository `x` at a URL.
async fn check_repository(repositories: &Repositories, url: &str) {
    let default = found(url).await;
    assert_eq!(default.branch.as_deref(), Some("main"), "{url}");
    assert_eq!(default.revision.as_ref(), Some(&repositories.main), "{url}");
    assert_eq!(default.vcs_type, VcsType::Git, "{url}");
    assert!(default.others.is_empty(), "{url}: {default:?}");
    let named = found(&format!("{url},branch=debian%2Fsid")).await;
    assert_eq!(named.revision.as_ref(), Some(&repositories.sid), "{url}");
    let tag = found(&format!("{url},branch=v1")).await;
    assert_eq!(tag.revision.as_ref(), Some(&repositories.main), "{url}");
    let absent = found(&format!("{url},branch=nowhere")).await;
    assert_eq!(absent.revision, None, "{url}");
    for (branch, expected) in [
        (
            Some("debian/sid"),
            vec![
                "gen/main",
                "patch-queue/debian/sid",
                "pristine-tar",
                "upstream/sid",
            ],
        ),
        (None, vec!["gen/main", "patch-queue/main", "pristine-tar"]),
    ] {
        let query = BranchQuery {
            branch: branch.map(str::to_owned),
            others: vec!["gen/main".into(), "gen".into()],
            colocated: true,
            ..BranchQuery::of_branch(url, None).unwrap()
        };
        let Probe::Found(found) = prober().probe(&query).await else {
            panic!("{url}")
        };
        let names: Vec<&String> = found.others.keys().collect();
        assert_eq!(names, expected, "{url}, {branch:?}");
        assert_eq!(found.others["gen/main"], repositories.main);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repository_answers_the_same_in_every_protocol() {
    let repositories = Repositories::new();
    let server = GitServer::start(repositories.home.path()).await;
    for mode in ["v2", "v1", "v0", "dumb"] {
        check_repository(&repositories, &format!("{}/{mode}/x.git", server.url)).await;
    }
    let path = repositories.path("x.git");
    check_repository(&repositories, &format!("file://{}", path.display())).await;
    check_repository(&repositories, &path.display().to_string()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_daemon_answers_too() {
    let repositories = Repositories::new();
    let port = free_port();
    let _daemon = Worker::start(
        // Not by `git daemon`, whose child would stay.
        Command::new(
            Path::new(&git(repositories.home.path(), &["--exec-path"])).join("git-daemon"),
        )
        .args(["--export-all", "--listen=127.0.0.1"])
        .arg(format!("--port={port}"))
        .arg(format!(
            "--base-path={}",
            repositories.home.path().display()
        ))
        .stderr(Stdio::null()),
    );
    let url = format!("git://127.0.0.1:{port}/x.git");
    let started = Instant::now();
    while !matches!(probe(&url).await, Probe::Found(_)) {
        assert!(started.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    check_repository(&repositories, &url).await;
    let absent = probe(&format!("git://127.0.0.1:{port}/nowhere.git")).await;
    assert!(is_unknown(&absent, "the server says"), "{absent:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resolved_url_is_the_one_after_redirects_without_a_login() {
    let repositories = Repositories::new();
    let server = GitServer::start(repositories.home.path()).await;
    let host = server.url.strip_prefix("http://").unwrap();
    for (url, resolved) in [
        (format!("http://{host}/v2/x.git/"), "v2/x.git"),
        (format!("http://{host}/dumb/x"), "dumb/x.git"),
        (format!("http://{host}/moved/x.git"), "v2/x.git"),
        (format!("http://someone:secret@{host}/v2/x.git"), "v2/x.git"),
        (format!("http://{host}/to-{host}/v2/x.git"), "v2/x.git"),
    ] {
        let found = found(&url).await;
        assert_eq!(
            found.repository,
            format!("http://{host}/{resolved}"),
            "{url}"
        );
        assert_eq!(found.revision.as_ref(), Some(&repositories.main), "{url}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn empty_repository_has_no_tip() {
    let repositories = Repositories::new();
    let server = GitServer::start(repositories.home.path()).await;
    for mode in ["v2", "v1", "v0"] {
        let found = found(&format!("{}/{mode}/empty.git", server.url)).await;
        assert_eq!(found.revision, None, "{mode}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_limits_differ_from_failures() {
    let home = tempfile::tempdir().unwrap();
    let server = GitServer::start(home.path()).await;
    let limited = |seconds: Option<i64>| Probe::RateLimited {
        retry_after: seconds.map(TimeDelta::seconds),
    };
    for (mode, expected) in [
        ("status-429", limited(None)),
        ("status-429-retry-after-30", limited(Some(30))),
        ("status-403-retry-after-30", limited(Some(30))),
        ("status-403-x-ratelimit-remaining-0", limited(None)),
        ("status-503-retry-after-5", limited(Some(5))),
    ] {
        let probed = probe(&format!("{}/{mode}/x.git", server.url)).await;
        assert_eq!(probed, expected, "{mode}");
    }
    for (mode, reason) in [
        ("status-403", "403"),
        ("status-503", "503"),
        ("status-500", "500"),
        ("status-401", "login"),
        ("status-404", "404"),
        ("nowhere", "404"),
        ("page", "redirected to something else"),
        ("login", "no git repository"),
        ("loop", "more than 5 redirects"),
        ("garbage", "no line of git's protocol"),
        ("to-10.0.0.1:80", "not one of vcs.allowed_hosts"),
        ("to-127.0.0.1:1", "nobody listens"),
    ] {
        let probed = probe(&format!("{}/{mode}/x.git", server.url)).await;
        assert!(is_unknown(&probed, reason), "{mode}: {probed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_is_too_slow_is_given_up_in_time() {
    let home = tempfile::tempdir().unwrap();
    let server = GitServer::start(home.path()).await;
    let started = Instant::now();
    let (hang, drip) = (
        format!("{}/hang/x.git", server.url),
        format!("{}/drip/x.git", server.url),
    );
    let (hang, drip) = tokio::join!(probe(&hang), probe(&drip));
    // What drips is no line of the protocol: four zeros are one, without end.
    assert_eq!((hang, drip), (Probe::TimedOut, Probe::TimedOut));
    let elapsed = started.elapsed();
    assert!(elapsed < Duration::from_secs(12), "{elapsed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tip_is_found_among_half_a_million_refs() {
    let home = tempfile::tempdir().unwrap();
    let server = GitServer::start(home.path()).await;
    let url = format!("{}/many/x.git", server.url);
    // The default branch is the first that is listed, this one the last.
    for (branch, revision) in [("", "1"), (",branch=main", "2")] {
        let started = Instant::now();
        let found = found(&format!("{url}{branch}")).await;
        assert_eq!(found.revision, Some(revision.repeat(40)), "{branch}");
        assert!(found.others.is_empty());
        assert!(!branch.is_empty() || started.elapsed() < Duration::from_millis(300));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logins_go_to_their_host_only() {
    let repositories = Repositories::new();
    let server = GitServer::start(repositories.home.path()).await;
    let other = GitServer::start(repositories.home.path()).await;
    let host = server.url.strip_prefix("http://").unwrap();
    let with_login = |host: &str, password: &str| ProbeSettings {
        logins: vec![HostLogin {
            host: host.into(),
            username: "u".into(),
            password: password.into(),
        }],
        ..settings()
    };
    let url = format!("{}/private/x.git", server.url);
    let query = BranchQuery::of_branch(&url, None).unwrap();
    let refused = prober().probe(&query).await;
    assert!(is_unknown(&refused, "login"), "{refused:?}");
    let probed = prober_with(with_login(host, "p@ss"), &["127.0.0.0/8"])
        .probe(&query)
        .await;
    assert!(matches!(probed, Probe::Found(_)), "{probed:?}");
    // Another port may be another server's.
    let probed = prober_with(with_login("127.0.0.1", "p@ss"), &["127.0.0.0/8"])
        .probe(&query)
        .await;
    assert!(is_unknown(&probed, "login"), "{probed:?}");
    // One in the URL, also where it must be escaped; it does not follow a redirect elsewhere.
    let probed = probe(&format!("http://u:p%40ss@{host}/private/x.git")).await;
    assert!(matches!(probed, Probe::Found(_)), "{probed:?}");
    let elsewhere = other.url.strip_prefix("http://").unwrap();
    let url = format!("http://u:p%40ss@{host}/to-{elsewhere}/v2/x.git");
    let probed = probe(&url).await;
    assert!(matches!(probed, Probe::Found(_)), "{probed:?}");
    assert!(other.seen().iter().all(|seen| seen.authorization.is_none()));
    assert!(!other.seen().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_allowed_hosts_and_networks_are_asked() {
    let repositories = Repositories::new();
    let server = GitServer::start(repositories.home.path()).await;
    let query = BranchQuery::of_branch(&format!("{}/v2/x.git", server.url), None).unwrap();
    let no_network = prober_with(settings(), &["10.0.0.0/8"]).probe(&query).await;
    assert!(
        is_unknown(&no_network, "allowed networks"),
        "{no_network:?}"
    );
    let no_host = ProbeSettings {
        allowed_hosts: vec![HostPattern::new("*.example.com")],
        ..settings()
    };
    let no_host = prober_with(no_host, &["127.0.0.0/8"]).probe(&query).await;
    assert!(is_unknown(&no_host, "vcs.allowed_hosts"), "{no_host:?}");
    assert_eq!(server.seen(), vec![]);
    for url in [
        "https://not-allowed.example/x",
        "git://not-allowed.example/x",
        "git@not-allowed.example:x",
        "svn://127.0.0.1/x",
        "ext::sh -c touch%20/tmp/x",
        "relative/path",
        "ssh://127.0.0.1/x",
    ] {
        let probed = probe(url).await;
        assert!(matches!(probed, Probe::Unknown(_)), "{url}: {probed:?}");
    }
}

/// A program in the place of ssh: it runs on this machine what it should run on the host, refuses
/// one user and hangs for another.
const SSH: &str = r#"#!/bin/sh
for argument; do last=$argument; done
case "$*" in
    *refuses@*) echo "Permission denied (publickey)." >&2; exit 255 ;;
    *hangs@*) exec sleep SECONDS ;;
esac
exec sh -c "$last"
"#;

/// A prober whose ssh command is that program, for this machine in some networks.
fn over_ssh(repositories: &Repositories, seconds: &str, networks: &[&str]) -> BranchProber {
    let program = repositories.path("ssh");
    std::fs::write(&program, SSH.replace("SECONDS", seconds)).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let settings = ProbeSettings {
        allowed_hosts: vec![HostPattern::new("localhost")],
        ssh_command: Some(program.display().to_string()),
        ..settings()
    };
    prober_with(settings, networks)
}

async fn probe_by(prober: &BranchProber, url: &str) -> Probe {
    prober
        .probe(&BranchQuery::of_branch(url, None).unwrap())
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn git_is_asked_over_ssh() {
    let repositories = Repositories::new();
    let seconds = (98_800_000 + u64::from(std::process::id())).to_string();
    let prober = over_ssh(&repositories, &seconds, &["127.0.0.0/8", "::1/128"]);
    let path = repositories.path("x.git").display().to_string();
    for url in [
        format!("ssh://git:secret@localhost{path}"),
        format!("git@localhost:{path}"),
    ] {
        let Probe::Found(found) = probe_by(&prober, &url).await else {
            panic!("{url}");
        };
        assert_eq!(found.revision.as_ref(), Some(&repositories.main), "{url}");
        let named = format!("{url},branch=debian%2Fsid");
        let Probe::Found(named) = probe_by(&prober, &named).await else {
            panic!("{named}");
        };
        assert_eq!(named.revision.as_ref(), Some(&repositories.sid), "{url}");
        assert!(!named.repository.contains("secret"), "{named:?}");
    }
    let refused = probe_by(&prober, &format!("refuses@localhost:{path}")).await;
    assert!(is_unknown(&refused, "Permission denied"), "{refused:?}");
    let hangs = format!("hangs@localhost:{path}");
    assert_eq!(probe_by(&prober, &hangs).await, Probe::TimedOut);
    let given_up = std::time::Instant::now();
    while !crate::server::worker_fixture::running(&seconds).is_empty() {
        assert!(given_up.elapsed() < Duration::from_secs(5), "it hangs on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_plain_addresses_of_allowed_hosts_are_asked_over_ssh() {
    let repositories = Repositories::new();
    let prober = over_ssh(&repositories, "1", &["127.0.0.0/8", "::1/128"]);
    // git and ssh would take these for another host than that before the first `/`.
    for odd in [
        "ssh://localhost#@evil.example/x",
        "ssh://localhost?@evil.example/x",
        "ssh://localhost%2F@evil.example/x",
        "ssh://evil.example%2F.localhost/x",
        "ssh://a@b@localhost/x",
        "ssh://-oProxyCommand=x/x",
        "-oProxyCommand=x@localhost:x",
        "ssh://localhost\\@evil.example/x",
    ] {
        let refused = probe_by(&prober, odd).await;
        assert!(matches!(refused, Probe::Unknown(_)), "{odd}: {refused:?}");
        let why = format!("{refused:?}");
        assert!(!why.contains("git says"), "{odd}: {why}");
    }
    let path = repositories.path("x.git").display().to_string();
    let refused = probe_by(&prober, &format!("git@host.example:{path}")).await;
    assert!(is_unknown(&refused, "vcs.allowed_hosts"), "{refused:?}");
    let elsewhere = over_ssh(&repositories, "1", &["10.0.0.0/8"]);
    let refused = probe_by(&elsewhere, &format!("git@localhost:{path}")).await;
    assert!(is_unknown(&refused, "allowed networks"), "{refused:?}");
}

/// Makes a branch of Bazaar by its files.
fn bzr_branch(folder: &Path, revision: &str) {
    std::fs::create_dir_all(folder.join(".bzr/branch")).unwrap();
    let format = "Bazaar-NG meta directory, format 1\n";
    std::fs::write(folder.join(".bzr/branch-format"), format).unwrap();
    std::fs::write(folder.join(".bzr/branch/last-revision"), revision).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn branch_of_bazaar_is_found() {
    let home = tempfile::tempdir().unwrap();
    let id = "joe@example.com-20260101-abc";
    bzr_branch(&home.path().join("branch"), &format!("7 {id}\n"));
    bzr_branch(&home.path().join("new"), "0 null:\n");
    let pipe = home.path().join("pipe");
    std::fs::create_dir_all(pipe.join(".bzr")).unwrap();
    let made = Command::new("mkfifo")
        .arg(pipe.join(".bzr/branch-format"))
        .status();
    assert!(made.unwrap().success());
    let refused = probe(&pipe.display().to_string()).await;
    assert!(is_unknown(&refused, "no regular file"), "{refused:?}");
    let server = GitServer::start(home.path()).await;
    let folder = home.path().join("branch").display().to_string();
    for url in [format!("{}/dumb/branch", server.url), folder] {
        let found = found(&url).await;
        assert_eq!(found.vcs_type, VcsType::Bzr, "{url}");
        assert_eq!(found.repository, url);
        assert_eq!(found.revision.as_deref(), Some(id), "{url}");
    }
    let new = found(&format!("{}/dumb/new", server.url)).await;
    assert_eq!(new.revision, None);
    // What is stored as git is not asked as a branch of Bazaar.
    let query = BranchQuery {
        vcs_type: Some(VcsType::Git),
        ..BranchQuery::of_branch(&format!("{}/dumb/branch", server.url), None).unwrap()
    };
    assert!(matches!(prober().probe(&query).await, Probe::Unknown(_)));
}
