//! What codemods can read of the worker that runs them.

use crate::server::worker_fixture::{WorkerFixture, end_of, without_namespaces};
use serde_json::Value;
use std::{
    io::Write,
    process::{Command, Stdio},
};

/// Reads all that a process can see of the others, and whether the worker's memory is among it.
const SPY: &str = "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' > \"$OUTPUT_DIRECTORY/seen\"; env > \"$OUTPUT_DIRECTORY/own\"; cat /proc/$PPID/environ | tr '\\0' '\\n' > \"$OUTPUT_DIRECTORY/parent\"; grep NoNewPrivs /proc/self/status; echo \"home $HOME\"";

fn text(fixture: &WorkerFixture, run: &Value, name: &str) -> String {
    String::from_utf8_lossy(&fixture.artifact(run, name)).into_owned()
}

#[tokio::test]
async fn codemod_finds_no_secret_of_the_worker() {
    let mut fixture = WorkerFixture::start().await;
    // In two parts, so that the command of the codemod is not what is found.
    let secret = format!("{}-{}", "hunter2", std::process::id());
    fixture.harness.server.add_worker("w9", &secret).await;
    let run = fixture
        .run_with(SPY, |worker| {
            worker
                .args(["--name", "w9"])
                .env("JANITOR_WORKER_PASSWORD", &secret)
                .env("AWS_SECRET_ACCESS_KEY", format!("aws-{secret}"))
                .env("DATABASE_URL", format!("postgresql://u:{secret}@host/db"))
                .env("LC_TIME", "C.UTF-8");
        })
        .await;
    assert_eq!(run["code"], "nothing-to-do", "{run}");
    for file in ["seen", "own", "parent"] {
        let seen = text(&fixture, &run, file);
        let found: Vec<_> = seen.lines().filter(|line| line.contains(&secret)).collect();
        assert!(found.is_empty(), "{file}: {found:?}");
    }
    let own = text(&fixture, &run, "own");
    assert!(own.contains("\nLC_TIME=C.UTF-8"), "{own}");
    assert!(!own.contains("DATABASE_URL"), "{own}");
    let log = fixture.log(&run).await;
    assert!(log.contains("NoNewPrivs:\t1"), "{log}");
    let home = log.lines().find(|line| line.starts_with("home "));
    assert!(home.is_some_and(|home| home.contains("/run-")), "{log}");
}

#[tokio::test]
async fn password_in_the_url_of_the_runner_is_in_no_argument() {
    let mut fixture = WorkerFixture::start().await;
    let secret = format!("{}-{}", "hunter3", std::process::id());
    fixture.harness.server.add_worker("w8", &secret).await;
    let codebase = fixture.queue(SPY).await;
    let address = fixture.harness.server.public.replace("http://", "");
    let mut worker = fixture
        .harness
        .command("w8", &format!("http://w8:{secret}@{address}/runner"));
    worker.arg("--once").env_remove("JANITOR_WORKER_PASSWORD");
    // In a namespace of its own the codemod does not see the worker.
    let folder = tempfile::tempdir().unwrap();
    without_namespaces(&mut worker, folder.path());
    let output = end_of(worker).await;
    assert!(output.status.success());
    let run = fixture.stored(&codebase).await;
    assert_eq!(run["code"], "nothing-to-do", "{run}");
    let seen = text(&fixture, &run, "seen");
    assert!(seen.contains(&address), "{seen}");
    assert!(!seen.contains(&secret), "{seen}");
}

#[tokio::test]
async fn only_named_variables_are_passed_on() {
    let mut fixture = WorkerFixture::start().await;
    let run = fixture
        .run_with("env", |worker| {
            worker
                .args(["--pass-env", "MADE_FOR_CODEMODS"])
                .env("MADE_FOR_CODEMODS", "yes")
                .env("HTTPS_PROXY", "http://proxy:3128")
                .env("NOT_FOR_CODEMODS", "no")
                .env("SSH_AUTH_SOCK", "/nowhere");
        })
        .await;
    let log = fixture.log(&run).await;
    assert!(log.contains("\nMADE_FOR_CODEMODS=yes\n"), "{log}");
    assert!(log.contains("\nHTTPS_PROXY=http://proxy:3128\n"), "{log}");
    assert!(!log.contains("NOT_FOR_CODEMODS"), "{log}");
    assert!(!log.contains("SSH_AUTH_SOCK"), "{log}");
}

#[tokio::test]
async fn password_is_read_from_standard_input() {
    let mut fixture = WorkerFixture::start().await;
    let codebase = fixture.queue("true").await;
    let mut worker = fixture.worker();
    worker
        .arg("--password-stdin")
        .env_remove("JANITOR_WORKER_PASSWORD")
        .stdin(Stdio::piped());
    let mut child = worker.spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"secret\n").unwrap();
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap());
    assert!(ended.await.unwrap().success(), "{}", fixture.worker_log());
    assert_eq!(fixture.stored(&codebase).await["code"], "nothing-to-do");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn codemods_of_an_ordinary_user_cannot_read_the_memory_of_the_worker() {
    let mut fixture = WorkerFixture::start().await;
    let home = tempfile::tempdir().unwrap();
    let script = format!(
        "id -u; ls {0}; cat /proc/$PPID/environ > /dev/null && echo environment read; head -c 1 /proc/$PPID/maps > /dev/null && echo memory read; true",
        home.path().display()
    );
    let codebase = fixture.queue(&script).await;
    // The repository must be readable for that user.
    open_to_all(fixture.harness.home.path());
    open_to_all(home.path());
    let inner = fixture.worker();
    let program = home.path().join("janitor-runner");
    std::fs::copy(inner.get_program(), &program).unwrap();
    let work = home.path().join("work");
    let config = home.path().join("gitconfig");
    std::fs::write(&config, "[safe]\n\tdirectory = *\n").unwrap();
    let mut worker = Command::new("/usr/bin/setpriv");
    // In a namespace of its own the codemod does not see the worker.
    without_namespaces(&mut worker, home.path());
    worker
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&program)
        .args(inner.get_args())
        .arg("--work-dir")
        .arg(&work)
        .arg("--git-config")
        .arg(&config)
        .env("JANITOR_WORKER_PASSWORD", "secret")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let output = end_of(worker).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let run = fixture.stored(&codebase).await;
    let log = fixture.log(&run).await;
    assert!(log.contains("\n65534\n"), "{log}");
    assert!(!log.contains("\nenvironment read\n"), "{log}");
    assert!(!log.contains("\nmemory read\n"), "{log}");
}

fn open_to_all(folder: &std::path::Path) {
    let mut chmod = Command::new("chmod");
    chmod.arg("-R").arg("a+rwX").arg(folder);
    assert!(chmod.status().unwrap().success());
}

#[tokio::test]
async fn check_says_what_is_in_force() {
    let mut worker = Command::new(crate::support::process::PROGRAM);
    worker
        .args([
            "worker",
            "--check",
            "--pass-env",
            "A",
            "--password-file",
            "/dev/null",
        ])
        .stdout(Stdio::piped());
    let output = end_of(worker).await;
    let text = String::from_utf8(output.stdout).unwrap();
    for line in [
        "environment made for each codemod: yes, with A of the worker",
        "password neither in the environment nor in the arguments: yes",
        "password in no file that codemods can read: no",
        "codemods without new privileges (setuid programs): yes",
        "codemods as another user: no",
        "codemods in a sandbox: no",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[tokio::test]
async fn codemods_run_as_another_user() {
    let mut fixture = WorkerFixture::start().await;
    // Whatever the mask of this process is.
    let open = Command::new("chmod")
        .arg("755")
        .arg(fixture.harness.home.path())
        .status();
    assert!(open.unwrap().success());
    let script = "id -u; id -G; cat /proc/$PPID/environ > /dev/null && echo environment read; touch ../x && echo left; echo two >> file.txt; git config core.fsmonitor 'id -u > ../who'; echo '{\"description\": \"As nobody\"}' > $SVP_RESULT; echo a > $OUTPUT_DIRECTORY/a.txt";
    let folder = tempfile::tempdir().unwrap();
    for has_namespaces in [true, false] {
        let run = fixture
            .run_with(script, |worker| {
                worker.args(["--run-as", "nobody"]);
                if !has_namespaces {
                    without_namespaces(worker, folder.path());
                    open_to_all(folder.path());
                }
            })
            .await;
        let log = fixture.log(&run).await;
        assert_eq!(run["code"], "success", "{run} {log}");
        assert_eq!(run["description"], "As nobody");
        assert!(log.contains("\n65534\n65534\n"), "{log}");
        let reads = log.contains("\nenvironment read\n");
        // In a namespace, the process above is one of the codemod's own.
        assert_eq!(reads, has_namespaces, "{log} {}", fixture.worker_log());
        assert!(!log.contains("\nleft\n"), "{log}");
        assert!(fixture.artifacts(&run).contains(&"a.txt".to_owned()));
        assert!(fixture.pushed(run["codebase"].as_str().unwrap()).exists());
    }
}

#[tokio::test]
async fn unknown_user_of_codemods_ends_the_worker() {
    let fixture = WorkerFixture::start().await;
    for user in ["nobody-of-that-name", "root", "--help"] {
        let mut worker = fixture.worker();
        worker.arg(format!("--run-as={user}"));
        let output = end_of(worker).await;
        assert_eq!(output.status.code(), Some(2), "{user}");
    }
}

#[tokio::test]
async fn work_directory_that_the_user_of_codemods_cannot_enter_is_refused() {
    let fixture = WorkerFixture::start().await;
    let closed = fixture.harness.path("closed");
    std::fs::create_dir(&closed).unwrap();
    let mut chmod = Command::new("chmod");
    assert!(chmod.arg("700").arg(&closed).status().unwrap().success());
    let mut worker = fixture.worker();
    worker
        .args(["--until-empty", "--run-as", "nobody", "--work-dir"])
        .arg(closed.join("work"))
        .stderr(Stdio::piped());
    let output = end_of(worker).await;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("cannot enter"), "{stderr}");
}

#[tokio::test]
async fn check_names_the_user_of_codemods() {
    let mut worker = Command::new(crate::support::process::PROGRAM);
    worker
        .args(["worker", "--check", "--run-as", "nobody"])
        .stdout(Stdio::piped());
    let output = end_of(worker).await;
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("codemods as another user: nobody\n"),
        "{text}"
    );
}
