//! `ArtifactStore` and `LogStore` on directories and buckets, `EventBus` in this process.

use crate::support::{servers, start, values::codebase_name};
use janitor_runner::{
    adapters::{
        fallback::{FallbackArtifacts, FallbackLogs},
        gcs::{GcsBucket, GcsCredentials, GcsSettings},
        in_process::InProcessEvents,
        local::{LocalArtifacts, LocalLogs},
        objects::{ObjectArtifacts, ObjectLogs},
        s3::{S3Bucket, S3Settings},
    },
    domain::name::RunId,
    ports::{
        ArtifactStore, Event, EventBus, LogStore, SpooledFile,
        artifact_store::{Content, FileReader},
        event_bus::Status,
        log_store::LogFolder,
    },
};
use std::{fs, path::Path, sync::Arc};
use tokio::io::AsyncReadExt;

fn file(spool: &Path, name: &str, content: &[u8]) -> SpooledFile {
    let path = spool.join(uuid(name));
    fs::write(&path, content).unwrap();
    SpooledFile {
        name: name.into(),
        content: Content::File(path),
        size: content.len() as u64,
    }
}

/// A name in the spool that says nothing of the file's own.
fn uuid(name: &str) -> String {
    format!(
        "{:x}",
        name.bytes()
            .fold(7_u64, |hash, byte| hash.wrapping_mul(31) + u64::from(byte))
    )
}

fn small(name: &str, content: &[u8]) -> SpooledFile {
    SpooledFile {
        name: name.into(),
        content: Content::Memory(content.to_vec().into()),
        size: content.len() as u64,
    }
}

async fn content(reader: Option<FileReader>) -> Option<Vec<u8>> {
    let mut bytes = vec![];
    reader?.read_to_end(&mut bytes).await.unwrap();
    Some(bytes)
}

/// The contract of artifact stores.
async fn keeps_artifacts(store: &impl ArtifactStore) {
    let (spool, run) = (tempfile::tempdir().unwrap(), RunId::new("r1"));
    store.health_check().await.unwrap();
    store.store(&RunId::new("none"), &[]).await.unwrap();
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    let files = [
        file(spool.path(), "a.bin", b"\0\xff"),
        small("b", b""),
        file(spool.path(), "large", &large),
        small("x_1.0~rc1+b%7E #1.deb", b"odd"),
    ];
    store.store(&run, &files).await.unwrap();
    for (name, expected) in [
        ("a.bin", b"\0\xff".as_slice()),
        ("b", b""),
        ("large", &large),
        ("x_1.0~rc1+b%7E #1.deb", b"odd"),
    ] {
        assert!(
            content(store.open(&run, name).await.unwrap())
                .await
                .unwrap()
                == expected,
            "{name}"
        );
    }
    for absent in ["c", "../r1/b", ""] {
        assert!(
            store.open(&run, absent).await.unwrap().is_none(),
            "{absent}"
        );
    }
    assert!(store.open(&RunId::new("r2"), "b").await.unwrap().is_none());
    store.store(&run, &[small("b", b"again")]).await.unwrap();
    assert_eq!(
        content(store.open(&run, "b").await.unwrap()).await.unwrap(),
        b"again"
    );
    assert!(store.store(&run, &[small("../x", b"x")]).await.is_err());
    assert!(
        store
            .store(&RunId::new("../r1"), &[small("x", b"x")])
            .await
            .is_err()
    );
}

/// The contract of log stores.
async fn keeps_logs(store: &impl LogStore) {
    let spool = tempfile::tempdir().unwrap();
    let folder = LogFolder {
        codebase: codebase_name("aa"),
        run: RunId::new("r1"),
    };
    store.health_check().await.unwrap();
    store.store(&folder, &[], start()).await.unwrap();
    let long = b"all work and no play\n".repeat(50_000);
    store
        .store(
            &folder,
            &[
                file(spool.path(), "worker.log", &long),
                small("x.log.1", "ä".as_bytes()),
            ],
            start(),
        )
        .await
        .unwrap();
    assert_eq!(
        content(store.open(&folder, "worker.log").await.unwrap())
            .await
            .unwrap(),
        long
    );
    assert_eq!(
        content(store.open(&folder, "x.log.1").await.unwrap())
            .await
            .unwrap(),
        "ä".as_bytes()
    );
    assert!(store.open(&folder, "other.log").await.unwrap().is_none());
    store
        .store(&folder, &[small("worker.log", b"again")], start())
        .await
        .unwrap();
    assert_eq!(
        content(store.open(&folder, "worker.log").await.unwrap())
            .await
            .unwrap(),
        b"again"
    );
    let wrong = LogFolder {
        run: RunId::new(".."),
        ..folder
    };
    assert!(
        store
            .store(&wrong, &[small("x.log", b"x")], start())
            .await
            .is_err()
    );
}

async fn gcs() -> Arc<GcsBucket> {
    let endpoint = servers::url("gcs");
    let bucket = servers::new_bucket(&endpoint).await;
    Arc::new(
        GcsBucket::open(&GcsSettings {
            bucket,
            endpoint: Some(endpoint),
            credentials: GcsCredentials::Anonymous,
        })
        .await
        .unwrap(),
    )
}

async fn s3() -> Arc<S3Bucket> {
    let endpoint = servers::url("s3");
    let bucket = servers::unique("bucket").replace('_', "-");
    let made = crate::support::process::client()
        .put(format!("{endpoint}/{bucket}"))
        .send()
        .await
        .unwrap();
    assert!(made.status().is_success());
    let settings = S3Settings {
        bucket,
        endpoint: Some(endpoint),
        region: "us-east-1".into(),
        access_key_id: Some("key".into()),
        secret_access_key: Some("secret".into()),
    };
    Arc::new(S3Bucket::open(&settings).unwrap())
}

#[tokio::test]
async fn a_directory_keeps_artifacts_and_logs() {
    let base = tempfile::tempdir().unwrap();
    keeps_artifacts(&LocalArtifacts::new(base.path().join("artifacts"))).await;
    keeps_logs(&LocalLogs::new(base.path().join("logs"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gcs_keeps_artifacts_and_logs() {
    keeps_artifacts(&ObjectArtifacts::new(gcs().await)).await;
    keeps_logs(&ObjectLogs::new(gcs().await, "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_keeps_artifacts_and_logs() {
    keeps_artifacts(&ObjectArtifacts::new(s3().await)).await;
    keeps_logs(&ObjectLogs::new(s3().await, "logs/")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_keeps_artifacts_and_logs() {
    let base = tempfile::tempdir().unwrap();
    let artifacts = Arc::new(LocalArtifacts::new(base.path().join("artifacts")));
    keeps_artifacts(&FallbackArtifacts::new(artifacts, base.path().join("backup")).0).await;
    let logs = Arc::new(LocalLogs::new(base.path().join("logs")));
    keeps_logs(&FallbackLogs::new(logs, base.path().join("backup")).0).await;
}

#[tokio::test]
async fn artifacts_are_kept_by_run_and_name() {
    let (base, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = LocalArtifacts::new(base.path().join("artifacts"));
    let run = RunId::new("r1");
    store.health_check().await.unwrap();
    store
        .store(
            &run,
            &[file(spool.path(), "a.bin", b"\0\xff"), small("b", b"")],
        )
        .await
        .unwrap();
    assert_eq!(
        fs::read(base.path().join("artifacts/r1/a.bin")).unwrap(),
        b"\0\xff"
    );
    assert_eq!(
        content(store.open(&run, "a.bin").await.unwrap())
            .await
            .unwrap(),
        b"\0\xff"
    );
    assert_eq!(
        content(store.open(&run, "b").await.unwrap()).await.unwrap(),
        b""
    );
    for absent in ["c", "../r1/b", ""] {
        assert!(
            store.open(&run, absent).await.unwrap().is_none(),
            "{absent}"
        );
    }
    store.store(&run, &[small("b", b"again")]).await.unwrap();
    assert_eq!(
        content(store.open(&run, "b").await.unwrap()).await.unwrap(),
        b"again"
    );
    store.store(&RunId::new("none"), &[]).await.unwrap();
    assert!(!base.path().join("artifacts/none").exists());
}

#[tokio::test]
async fn names_that_are_paths_are_refused_by_the_stores_too() {
    let (base, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let artifacts = LocalArtifacts::new(base.path().join("artifacts"));
    assert!(
        artifacts
            .store(&RunId::new("r1"), &[small("../x", b"x")])
            .await
            .is_err()
    );
    assert!(
        artifacts
            .store(&RunId::new("../r1"), &[small("x", b"x")])
            .await
            .is_err()
    );
    let logs = LocalLogs::new(base.path().join("logs"));
    let folder = LogFolder {
        codebase: codebase_name("aa"),
        run: RunId::new(".."),
    };
    assert!(
        logs.store(&folder, &[file(spool.path(), "x.log", b"x")], start())
            .await
            .is_err()
    );
    assert!(!base.path().join("x").exists());
}

#[tokio::test]
async fn logs_are_kept_compressed() {
    let (base, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = LocalLogs::new(base.path().to_owned());
    let folder = LogFolder {
        codebase: codebase_name("aa"),
        run: RunId::new("r1"),
    };
    store.health_check().await.unwrap();
    let long = b"all work and no play\n".repeat(50_000);
    store
        .store(
            &folder,
            &[
                file(spool.path(), "worker.log", &long),
                small("x.log.1", "ä".as_bytes()),
            ],
            start(),
        )
        .await
        .unwrap();
    let stored = fs::read(base.path().join("aa/r1/worker.log.gz")).unwrap();
    assert!(stored.len() < long.len() / 10);
    assert_eq!(
        i64::from(u32::from_le_bytes(stored[4..8].try_into().unwrap())),
        start().timestamp()
    );
    assert_eq!(
        content(store.open(&folder, "worker.log").await.unwrap())
            .await
            .unwrap(),
        long
    );
    assert_eq!(
        content(store.open(&folder, "x.log.1").await.unwrap())
            .await
            .unwrap(),
        "ä".as_bytes()
    );
    assert!(store.open(&folder, "other.log").await.unwrap().is_none());
    fs::write(base.path().join("aa/r1/plain.log"), "old").unwrap();
    assert_eq!(
        content(store.open(&folder, "plain.log").await.unwrap())
            .await
            .unwrap(),
        b"old"
    );
    store
        .store(&folder, &[small("worker.log", b"again")], start())
        .await
        .unwrap();
    assert_eq!(
        content(store.open(&folder, "worker.log").await.unwrap())
            .await
            .unwrap(),
        b"again"
    );
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_is_told_by_the_check() {
    let base = tempfile::tempdir().unwrap();
    fs::write(base.path().join("file"), "").unwrap();
    assert!(
        LocalLogs::new(base.path().join("file/logs"))
            .health_check()
            .await
            .is_err()
    );
    assert!(
        LocalArtifacts::new(base.path().join("file/artifacts"))
            .health_check()
            .await
            .is_err()
    );
}

#[tokio::test]
async fn events_reach_whoever_listens() {
    let events = InProcessEvents::default();
    let event = || {
        Event::Queue(Box::new(Status {
            processing: vec![],
            avoid_hosts: vec![],
            rate_limit_hosts: vec![],
            now: start(),
        }))
    };
    events.publish(event()).await.unwrap();
    let mut listener = events.listen();
    events.publish(event()).await.unwrap();
    assert_eq!(listener.recv().await.unwrap(), event());
    assert!(listener.try_recv().is_err());
    events.health_check().await.unwrap();
}
