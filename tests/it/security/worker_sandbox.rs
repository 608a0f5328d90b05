//! What codemods can do in the sandbox.

use crate::{
    server::worker_fixture::{WorkerFixture, end_of, running, without_namespaces},
    support::worker_harness::git,
};

/// Looks around, and tries to leave something behind. Python is there, since git's tests need it.
const LOOK_AROUND: &str = r#"
grep '^CapEff' /proc/self/status
echo "processes $(ls -d /proc/[0-9]* | wc -l)"
touch /etc/left-behind 2>/dev/null || echo "no write to /etc"
echo mine > /tmp/mine && ls -A /tmp | grep -v '^mine$' | sed 's/^/in tmp: /'
ls /run/* >/dev/null 2>&1 || echo "nothing in /run"
cat "$HIDDEN" 2>/dev/null || echo "no home of the worker"
python3 -c '
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), 2)
    print("network")
except OSError:
    print("no network")
' "$SERVER_PORT"
echo changed > changed.txt
"#;

/// Runs the script; returns its run, its log, and the folder in which all of it is.
async fn log_of(network: bool) -> (serde_json::Value, String, std::path::PathBuf) {
    let mut fixture = WorkerFixture::start().await;
    // Not below /tmp, which the sandbox empties anyway.
    let folder = std::env::home_dir().filter(|home| home.is_dir());
    let home = tempfile::tempdir_in(folder.unwrap_or_else(|| "/var/lib".into())).unwrap();
    let hidden = home.path().join("token");
    std::fs::write(&hidden, "the token of the worker").unwrap();
    let port = fixture
        .harness
        .server
        .admin
        .rsplit(':')
        .next()
        .unwrap()
        .to_owned();
    let run = fixture
        .run_with(LOOK_AROUND, |worker| {
            worker
                .args(["--sandbox", "bwrap"])
                .args(["--pass-env", "HIDDEN", "--pass-env", "SERVER_PORT"])
                .env("HOME", home.path())
                .env("HIDDEN", &hidden)
                .env("SERVER_PORT", &port);
            if network {
                worker.arg("--sandbox-network");
            }
        })
        .await;
    let log = fixture.log(&run).await;
    assert!(!std::path::Path::new("/etc/left-behind").exists());
    (run, log, fixture.harness.home.path().to_owned())
}

#[tokio::test]
async fn codemod_in_the_sandbox_reaches_only_its_checkout() {
    let (run, log, folder) = log_of(false).await;
    assert_eq!(run["code"], "success", "{run} {log}");
    for line in [
        "no write to /etc",
        "nothing in /run",
        "no home of the worker",
        "no network",
        "CapEff:\t0000000000000000",
    ] {
        assert!(log.lines().any(|found| found == line), "{line}: {log}");
    }
    let count = log.lines().find_map(|line| line.strip_prefix("processes "));
    let count: usize = count.unwrap().trim().parse().unwrap();
    assert!(count < 10, "{count} processes: {log}");
    // But for the folder of its own run.
    let work = folder.file_name().unwrap().to_string_lossy();
    let seen = log.lines().filter_map(|line| line.strip_prefix("in tmp: "));
    let others: Vec<_> = seen.filter(|name| *name != work).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(!log.contains("the token of the worker"), "{log}");
}

/// Makes a repository below the checkout by whose settings git runs a program when it looks at it.
const REPOSITORY_BELOW: &str = r#"
git init -q sub
echo a > sub/a
echo 'a filter=x' > sub/.gitattributes
git -C sub add -A
git -C sub commit -q -m one
git config -f .gitmodules submodule.sub.path sub
git config -f .gitmodules submodule.sub.ignore none
git add -A 2>/dev/null
git commit -q -m sub
git -C sub config filter.x.clean "env > $OUTPUT_DIRECTORY/environment; touch $OUTSIDE; cat"
touch sub/a
echo two >> file.txt
"#;

#[tokio::test]
async fn programs_of_repositories_below_the_checkout_stay_in_the_sandbox() {
    for sandbox in [true, false] {
        let mut fixture = WorkerFixture::start().await;
        let outside = fixture.harness.path("outside");
        let run = fixture
            .run_with(REPOSITORY_BELOW, |worker| {
                if sandbox {
                    worker.args(["--sandbox", "bwrap"]);
                }
                worker
                    .args(["--pass-env", "OUTSIDE"])
                    .env("OUTSIDE", &outside)
                    .env("SSH_AUTH_SOCK", "/the/agent/of/the/worker");
            })
            .await;
        assert_eq!(run["code"], "success", "{run}");
        // It ran, since nothing prevents that, but with nothing of the worker's.
        let environment = fixture.artifact(&run, "environment");
        let environment = String::from_utf8_lossy(&environment);
        assert!(!environment.contains("SSH_AUTH_SOCK"), "{environment}");
        let home = environment
            .lines()
            .find_map(|line| line.strip_prefix("HOME="));
        assert!(home.unwrap().ends_with("/home"), "{environment}");
        assert_eq!(outside.exists(), !sandbox, "{sandbox}");
    }
}

/// What the filter of such a repository runs: a process that keeps the output of the worker's git
/// open, which has another git below it.
const HOLD: &str = r#"
cat > "$HOME/hold" <<'EOF'
process=$$
while [ "$process" -gt 1 ]; do
    parent=$(cut -d' ' -f4 "/proc/$process/stat")
    if [ "$(cat "/proc/$process/comm")" = git ] && [ "$(cat "/proc/$parent/comm")" != git ]; then
        setsid sleep SECONDS < /dev/null > "/proc/$process/fd/1" 2> /dev/null &
        break
    fi
    process=$parent
done
cat
EOF
git -C sub config filter.x.clean 'sh "$HOME/hold"'
"#;

#[tokio::test]
async fn process_that_keeps_an_output_of_git_open_does_not_hold_the_run() {
    let folder = tempfile::tempdir().unwrap();
    for has_namespaces in [true, false] {
        let mut fixture = WorkerFixture::start().await;
        let seconds = format!("45.{}", std::process::id());
        let script = format!("{REPOSITORY_BELOW}{}", HOLD.replace("SECONDS", &seconds));
        let started = std::time::Instant::now();
        let run = fixture
            .run_with(&script, |worker| {
                if !has_namespaces {
                    without_namespaces(worker, folder.path());
                }
            })
            .await;
        assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
        assert_eq!(run["code"], "success", "{run}");
        let left = running(&seconds);
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn codemod_cannot_change_the_repository_that_was_cloned() {
    let fixture = WorkerFixture::start().await;
    let repository = fixture.harness.path("repository");
    // By its path: git makes links to what is there then, unless it must not.
    let url = repository.display().to_string();
    let damage = "for file in .git/objects/??/*; do chmod u+w $file; echo damaged > $file; done";
    fixture.harness.queue_at("path", &url, damage).await;
    let ended = end_of(fixture.worker()).await;
    assert!(ended.status.success(), "{}", fixture.worker_log());
    let run = fixture.stored("path").await;
    assert_ne!(run["code"], "success", "{run}");
    git(&repository, &["fsck", "--strict"]);
    assert_eq!(git(&repository, &["show", "HEAD:file.txt"]), "one");
}

#[tokio::test]
async fn network_is_there_when_it_is_allowed() {
    let (run, log, _) = log_of(true).await;
    assert_eq!(run["code"], "success", "{run} {log}");
    assert!(log.lines().any(|found| found == "network"), "{log}");
    assert!(
        log.lines().any(|found| found == "no home of the worker"),
        "{log}"
    );
}

#[tokio::test]
async fn worker_without_bubblewrap_ends_and_says_so() {
    let fixture = WorkerFixture::start().await;
    let mut worker = fixture
        .harness
        .command("w1", &fixture.harness.server.public);
    worker
        .args(["--sandbox", "bwrap"])
        .env("PATH", "/nowhere")
        .stderr(std::process::Stdio::piped());
    let output = crate::server::worker_fixture::end_of(worker).await;
    assert_eq!(output.status.code(), Some(2));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("bubblewrap"), "{text}");
}
