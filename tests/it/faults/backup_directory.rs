//! Odd files in the backup directory, runs that a store refuses, and stores that took some of the files already.

use crate::support::{
    fake_bucket::{FakeBucket, Kind, Mood},
    files::{memory_file, read, spooled_file},
    start,
    values::codebase_name,
};
use janitor_runner::{
    adapters::{
        fallback::{Drainer, FallbackArtifacts, FallbackLogs, SpooledFiles},
        local::{LocalArtifacts, LocalLogs},
        objects::{ObjectArtifacts, ObjectLogs},
    },
    domain::name::RunId,
    metrics::Metrics,
    ports::{ArtifactStore, LogStore, log_store::LogFolder},
};
use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::Path, sync::Arc};

/// A drainer of the backup directory of these stores.
fn drainer(
    home: &Path,
    artifacts: Arc<dyn ArtifactStore>,
    logs: Arc<dyn LogStore>,
    metrics: &Arc<Metrics>,
) -> Drainer {
    let backup = home.join("backup");
    let (_, artifacts) = FallbackArtifacts::new(artifacts, backup.join("artifacts"));
    let (_, logs) = FallbackLogs::new(logs, backup.join("logs"));
    let spooled: Vec<Arc<dyn SpooledFiles>> = vec![Arc::new(logs), Arc::new(artifacts)];
    Drainer::new(&backup, spooled, metrics.clone()).unwrap()
}

fn log_folder(run: &str) -> LogFolder {
    LogFolder {
        codebase: codebase_name("aa"),
        run: RunId::new(run),
    }
}

/// Spools files of two runs, and odd entries among them.
async fn spool_odd_entries(home: &Path) {
    let backup = home.join("backup");
    let spooled_logs = LocalLogs::new(backup.join("logs"));
    for run in ["r1", "r2"] {
        let files = ["w.log", "x.log"].map(|name| memory_file(name, run.as_bytes()));
        spooled_logs
            .store(&log_folder(run), &files, start())
            .await
            .unwrap();
        fs::create_dir_all(backup.join("artifacts").join(run)).unwrap();
        fs::write(backup.join("artifacts").join(run).join("a"), run).unwrap();
    }
    // A folder in place of a file, a link, a file in place of a run, a log that was cut, a codebase that cannot be one.
    fs::create_dir(backup.join("artifacts/r1/folder")).unwrap();
    fs::write(home.join("secret"), "s").unwrap();
    symlink(home.join("secret"), backup.join("artifacts/r1/link")).unwrap();
    fs::write(backup.join("artifacts/file"), "f").unwrap();
    fs::create_dir(backup.join("logs/bb")).unwrap();
    let cut = fs::read(backup.join("logs/aa/r1/w.log.gz")).unwrap();
    fs::write(backup.join("logs/aa/r1/w.log.gz"), &cut[..cut.len() / 2]).unwrap();
    fs::create_dir_all(backup.join("logs/not a codebase/r3")).unwrap();
    fs::write(backup.join("logs/not a codebase/r3/w.log.gz"), &cut).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_entries_are_set_aside_and_all_others_are_moved() {
    let home = tempfile::tempdir().unwrap();
    let (backup, stored) = (home.path().join("backup"), home.path().join("stored"));
    let artifacts = Arc::new(LocalArtifacts::new(stored.join("artifacts")));
    let logs = Arc::new(LocalLogs::new(stored.join("logs")));
    spool_odd_entries(home.path()).await;
    let metrics = Arc::new(Metrics::new());
    let drainer = drainer(home.path(), artifacts.clone(), logs.clone(), &metrics);
    assert!(drainer.drain().await);
    for run in ["r1", "r2"] {
        let artifact = artifacts.open(&RunId::new(run), "a").await.unwrap();
        assert_eq!(read(artifact).await.unwrap(), run.as_bytes());
        let log = logs.open(&log_folder(run), "x.log").await.unwrap();
        assert_eq!(read(log).await.unwrap(), run.as_bytes());
    }
    assert!(
        logs.open(&log_folder("r1"), "w.log")
            .await
            .unwrap()
            .is_none()
    );
    assert!(
        artifacts
            .open(&RunId::new("r1"), "link")
            .await
            .unwrap()
            .is_none()
    );
    for aside in [
        "artifacts/r1/folder",
        "artifacts/r1/link",
        "artifacts/file",
        "logs/aa/r1/w.log.gz",
        "logs/not a codebase/r3/w.log.gz",
    ] {
        let path = backup.join("set-aside").join(aside);
        assert!(fs::symlink_metadata(path).is_ok(), "{aside}");
    }
    assert_eq!(
        fs::read_dir(backup.join("logs"))
            .unwrap()
            .filter(|e| !e
                .as_ref()
                .unwrap()
                .file_name()
                .to_string_lossy()
                .starts_with('.'))
            .count(),
        0
    );
    let text = metrics.text(&BTreeMap::new(), &BTreeMap::new()).unwrap();
    for line in [
        "janitor_runner_backup_set_aside{store=\"artifacts\"} 3",
        "janitor_runner_backup_set_aside{store=\"logs\"} 2",
        "janitor_runner_backup_runs{store=\"artifacts\"} 0",
        "janitor_runner_backup_runs{store=\"logs\"} 0",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_that_the_store_refuses_stops_no_other() {
    let (bucket, home) = (FakeBucket::start().await, tempfile::tempdir().unwrap());
    let objects = bucket.objects_of(Kind::S3).await;
    let backup = home.path().join("backup");
    let spooled = LocalArtifacts::new(backup.join("artifacts"));
    for run in ["r1", "r2", "r3"] {
        let files = ["a", "b"].map(|name| memory_file(name, run.as_bytes()));
        spooled.store(&RunId::new(run), &files).await.unwrap();
    }
    let metrics = Arc::new(Metrics::new());
    let artifacts = Arc::new(ObjectArtifacts::new(objects.clone()));
    let logs = Arc::new(ObjectLogs::new(objects, ""));
    let drainer = drainer(home.path(), artifacts, logs, &metrics);
    bucket.decide(|asked| match asked.path.ends_with("/r1/a") {
        true => Mood::Status(403),
        false => Mood::Normal,
    });
    assert!(!drainer.drain().await);
    let names: Vec<String> = bucket
        .objects()
        .into_keys()
        .filter(|name| name.starts_with('r'))
        .collect();
    assert_eq!(names, ["r1/b", "r2/a", "r2/b", "r3/a", "r3/b"]);
    assert_eq!(
        fs::read_dir(backup.join("artifacts/r1")).unwrap().count(),
        1
    );
    assert!(!backup.join("artifacts/r2").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_the_store_took_before_it_failed_are_in_the_backup_too() {
    let home = tempfile::tempdir().unwrap();
    let stored = home.path().join("stored");
    let primary = Arc::new(LocalArtifacts::new(stored.clone()));
    let (store, spooled) = FallbackArtifacts::new(primary, home.path().join("backup"));
    // The second file cannot be stored.
    fs::create_dir_all(stored.join("r1/b/in the way")).unwrap();
    let spool = home.path().join("spool");
    fs::create_dir(&spool).unwrap();
    let files = ["a", "b", "c"].map(|name| spooled_file(&spool, name, name.as_bytes()));
    let run = RunId::new("r1");
    store.store(&run, &files).await.unwrap();
    for name in ["a", "b", "c"] {
        let found = fs::read(home.path().join("backup/r1").join(name)).unwrap();
        assert_eq!(found, name.as_bytes());
    }
    fs::remove_dir_all(stored.join("r1/b")).unwrap();
    spooled.drain(&home.path().join("backup/r1")).await.unwrap();
    for name in ["a", "b", "c"] {
        assert_eq!(
            fs::read(stored.join("r1").join(name)).unwrap(),
            name.as_bytes()
        );
    }
    assert!(!home.path().join("backup/r1").exists());
    assert_eq!(fs::read_dir(stored.join(".part")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newer_file_is_not_replaced_by_one_that_waits() {
    let (bucket, home) = (FakeBucket::start().await, tempfile::tempdir().unwrap());
    let objects = bucket.objects_of(Kind::S3).await;
    let backup = home.path().join("backup");
    // Both stores as they are after a restart of the process: they try the bucket first.
    let artifacts = || {
        let bucket = Arc::new(ObjectArtifacts::new(objects.clone()));
        FallbackArtifacts::new(bucket, backup.join("artifacts"))
    };
    let logs = || {
        let bucket = Arc::new(ObjectLogs::new(objects.clone(), ""));
        FallbackLogs::new(bucket, backup.join("logs"))
    };
    let (run, log_folder) = (RunId::new("r1"), log_folder("r1"));
    for (mood, content) in [(Mood::Status(403), "old"), (Mood::Normal, "new and whole")] {
        bucket.always(mood);
        let file = [memory_file("w.log", content.as_bytes())];
        artifacts().0.store(&run, &file).await.unwrap();
        logs().0.store(&log_folder, &file, start()).await.unwrap();
        let shown = artifacts().0.open(&run, "w.log").await.unwrap();
        assert_eq!(read(shown).await.unwrap(), content.as_bytes());
        let shown = logs().0.open(&log_folder, "w.log").await.unwrap();
        assert_eq!(read(shown).await.unwrap(), content.as_bytes());
    }
    artifacts()
        .1
        .drain(&backup.join("artifacts/r1"))
        .await
        .unwrap();
    logs().1.drain(&backup.join("logs/aa/r1")).await.unwrap();
    assert!(!backup.join("artifacts/r1").exists());
    assert!(!backup.join("logs/aa").exists());
    assert_eq!(bucket.objects()["r1/w.log"], b"new and whole");
    let log = ObjectLogs::new(objects, "")
        .open(&log_folder, "w.log")
        .await;
    assert_eq!(read(log.unwrap()).await.unwrap(), b"new and whole");
}
