//! The work directory of a worker, beside other users and after killed workers.

use crate::{
    server::worker_fixture::{WorkerFixture, end_of, running, without_namespaces},
    support::worker_harness::Worker,
};
use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
    process::Stdio,
};

/// Starts a worker on a directory; returns its exit code and what it says.
async fn worker_on(fixture: &WorkerFixture, directory: &Path) -> (Option<i32>, String) {
    let mut worker = fixture.worker();
    worker
        .arg("--until-empty")
        .arg("--work-dir")
        .arg(directory)
        .stderr(Stdio::piped());
    let output = end_of(worker).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), stderr)
}

#[tokio::test]
async fn directory_of_another_user_is_refused() {
    let fixture = WorkerFixture::start().await;
    let foreign = fixture.harness.path("foreign");
    fs::create_dir(&foreign).unwrap();
    chown(&foreign, Some(65_534), None).unwrap();
    let (code, stderr) = worker_on(&fixture, &foreign).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("belongs to user 65534"), "{stderr}");

    let open = fixture.harness.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
    let (code, stderr) = worker_on(&fixture, &open).await;
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("other users can write"), "{stderr}");

    let link = fixture.harness.path("link");
    symlink(&foreign, &link).unwrap();
    let (code, stderr) = worker_on(&fixture, &link).await;
    assert_eq!(code, Some(2), "{stderr}");
}

#[tokio::test]
async fn folders_are_closed_to_others() {
    let mut fixture = WorkerFixture::start().await;
    let run = fixture.run("stat -c %a \"$PWD/../..\" \"$PWD/..\"").await;
    let log = fixture.log(&run).await;
    assert!(log.contains("\n700\n700\n"), "{log}");
}

#[tokio::test]
async fn next_worker_removes_what_a_killed_one_left() {
    let mut fixture = WorkerFixture::start().await;
    let seconds = (98_700_000 + u64::from(std::process::id())).to_string();
    let codebase = fixture
        .queue(&format!("setsid sleep {seconds} & echo working; wait"))
        .await;
    let folder = tempfile::tempdir().unwrap();
    let mut killed = fixture.worker();
    // Otherwise its processes end with it.
    without_namespaces(&mut killed, folder.path());
    let mut killed = Worker::start(&mut killed);
    let id = fixture.harness.active_run_of(&codebase).await;
    fixture.harness.wait_for_log(&id, "working\n").await;
    let work = fixture.harness.path("work-w1");
    // A live worker beside it keeps its folder.
    let other = fixture.queue("echo working; sleep 3").await;
    let mut second = fixture.worker();
    second.args(["--name", "w2", "--codebase", &other]);
    let mut second = Worker::start(&mut second);
    let id = fixture.harness.active_run_of(&other).await;
    fixture.harness.wait_for_log(&id, "working\n").await;
    assert_eq!(runs_in(&work), 2);
    killed.kill();
    let (code, stderr) = {
        let mut third = fixture.worker();
        third
            .args(["--until-empty", "--codebase", "none"])
            .stderr(Stdio::piped());
        let output = end_of(third).await;
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), stderr)
    };
    assert_eq!(code, Some(0), "{stderr}");
    assert_eq!(runs_in(&work), 1, "{stderr}");
    assert!(running(&seconds).is_empty());
    fixture.harness.wait_for_run(&id, "nothing-to-do").await;
    second.kill();
}

fn runs_in(work: &Path) -> usize {
    let entries = fs::read_dir(work).unwrap().map(|entry| entry.unwrap());
    entries
        .filter(|entry| entry.file_name().to_str().unwrap().starts_with("run-"))
        .count()
}
