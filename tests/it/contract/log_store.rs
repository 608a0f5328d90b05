//! `LogStore`, on directories and buckets, directly and with a fallback.

use crate::support::{files::*, start, values::codebase_name};
use janitor_runner::{
    adapters::{fallback::FallbackLogs, local::LocalLogs, objects::ObjectLogs},
    domain::name::RunId,
    ports::{LogStore, log_store::LogFolder},
};
use std::{fs, sync::Arc};

/// The contract of log stores.
async fn log_store_contract(store: &impl LogStore) {
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
                spooled_file(spool.path(), "worker.log", &long),
                memory_file("x.log.1", "ä".as_bytes()),
            ],
            start(),
        )
        .await
        .unwrap();
    assert_eq!(
        read(store.open(&folder, "worker.log").await.unwrap())
            .await
            .unwrap(),
        long
    );
    assert_eq!(
        read(store.open(&folder, "x.log.1").await.unwrap())
            .await
            .unwrap(),
        "ä".as_bytes()
    );
    assert!(store.open(&folder, "other.log").await.unwrap().is_none());
    store
        .store(&folder, &[memory_file("worker.log", b"again")], start())
        .await
        .unwrap();
    assert_eq!(
        read(store.open(&folder, "worker.log").await.unwrap())
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
            .store(&wrong, &[memory_file("x.log", b"x")], start())
            .await
            .is_err()
    );
}

#[tokio::test]
async fn local_store_meets_the_contract() {
    let base = tempfile::tempdir().unwrap();
    log_store_contract(&LocalLogs::new(base.path().join("logs"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gcs_store_meets_the_contract() {
    log_store_contract(&ObjectLogs::new(gcs().await, "")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_store_meets_the_contract() {
    log_store_contract(&ObjectLogs::new(s3().await, "logs/")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fallback_store_meets_the_contract() {
    let base = tempfile::tempdir().unwrap();
    let logs = Arc::new(LocalLogs::new(base.path().join("logs")));
    let (store, _) = FallbackLogs::new(logs, base.path().join("backup"));
    log_store_contract(&store).await;
}

#[tokio::test]
async fn local_logs_are_stored_compressed() {
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
                spooled_file(spool.path(), "worker.log", &long),
                memory_file("x.log.1", "ä".as_bytes()),
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
        read(store.open(&folder, "worker.log").await.unwrap())
            .await
            .unwrap(),
        long
    );
    assert_eq!(
        read(store.open(&folder, "x.log.1").await.unwrap())
            .await
            .unwrap(),
        "ä".as_bytes()
    );
    assert!(store.open(&folder, "other.log").await.unwrap().is_none());
    fs::write(base.path().join("aa/r1/plain.log"), "old").unwrap();
    assert_eq!(
        read(store.open(&folder, "plain.log").await.unwrap())
            .await
            .unwrap(),
        b"old"
    );
    store
        .store(&folder, &[memory_file("worker.log", b"again")], start())
        .await
        .unwrap();
    assert_eq!(
        read(store.open(&folder, "worker.log").await.unwrap())
            .await
            .unwrap(),
        b"again"
    );
}

#[tokio::test]
async fn local_store_rejects_names_that_are_paths() {
    let (base, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let logs = LocalLogs::new(base.path().join("logs"));
    let folder = LogFolder {
        codebase: codebase_name("aa"),
        run: RunId::new(".."),
    };
    assert!(
        logs.store(
            &folder,
            &[spooled_file(spool.path(), "x.log", b"x")],
            start()
        )
        .await
        .is_err()
    );
    assert!(!base.path().join("x").exists());
}

#[tokio::test]
async fn health_check_fails_if_the_folder_cannot_be_written() {
    let base = tempfile::tempdir().unwrap();
    fs::write(base.path().join("file"), "").unwrap();
    let store = LocalLogs::new(base.path().join("file/logs"));
    assert!(store.health_check().await.is_err());
}
