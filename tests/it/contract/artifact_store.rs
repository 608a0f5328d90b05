//! `ArtifactStore`, on directories and buckets, directly and with a fallback.

use crate::support::files::*;
use janitor_runner::{
    adapters::{fallback::FallbackArtifacts, local::LocalArtifacts, objects::ObjectArtifacts},
    domain::name::RunId,
    ports::ArtifactStore,
};
use std::{fs, sync::Arc};

/// The contract of artifact stores.
async fn artifact_store_contract(store: &impl ArtifactStore) {
    let (spool, run) = (tempfile::tempdir().unwrap(), RunId::new("r1"));
    store.health_check().await.unwrap();
    store.store(&RunId::new("none"), &[]).await.unwrap();
    let large: Vec<u8> = (0..20_000_000_u32).map(|n| (n % 251) as u8).collect();
    let files = [
        spooled_file(spool.path(), "a.bin", b"\0\xff"),
        memory_file("b", b""),
        spooled_file(spool.path(), "large", &large),
        memory_file("x_1.0~rc1+b%7E #1.deb", b"odd"),
    ];
    store.store(&run, &files).await.unwrap();
    for (name, expected) in [
        ("a.bin", b"\0\xff".as_slice()),
        ("b", b""),
        ("large", &large),
        ("x_1.0~rc1+b%7E #1.deb", b"odd"),
    ] {
        assert!(
            read(store.open(&run, name).await.unwrap()).await.unwrap() == expected,
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
    store
        .store(&run, &[memory_file("b", b"again")])
        .await
        .unwrap();
    assert_eq!(
        read(store.open(&run, "b").await.unwrap()).await.unwrap(),
        b"again"
    );
    assert!(
        store
            .store(&run, &[memory_file("../x", b"x")])
            .await
            .is_err()
    );
    assert!(
        store
            .store(&RunId::new("../r1"), &[memory_file("x", b"x")])
            .await
            .is_err()
    );
}

#[tokio::test]
async fn local_store_meets_the_contract() {
    let base = tempfile::tempdir().unwrap();
    artifact_store_contract(&LocalArtifacts::new(base.path().join("artifacts"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gcs_store_meets_the_contract() {
    artifact_store_contract(&ObjectArtifacts::new(gcs().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_store_meets_the_contract() {
    artifact_store_contract(&ObjectArtifacts::new(s3().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fallback_store_meets_the_contract() {
    let base = tempfile::tempdir().unwrap();
    let artifacts = Arc::new(LocalArtifacts::new(base.path().join("artifacts")));
    let (store, _) = FallbackArtifacts::new(artifacts, base.path().join("backup"));
    artifact_store_contract(&store).await;
}

#[tokio::test]
async fn local_artifacts_are_stored_by_run_and_name() {
    let (base, spool) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = LocalArtifacts::new(base.path().join("artifacts"));
    let run = RunId::new("r1");
    store.health_check().await.unwrap();
    store
        .store(
            &run,
            &[
                spooled_file(spool.path(), "a.bin", b"\0\xff"),
                memory_file("b", b""),
            ],
        )
        .await
        .unwrap();
    assert_eq!(
        fs::read(base.path().join("artifacts/r1/a.bin")).unwrap(),
        b"\0\xff"
    );
    assert_eq!(
        read(store.open(&run, "a.bin").await.unwrap())
            .await
            .unwrap(),
        b"\0\xff"
    );
    assert_eq!(
        read(store.open(&run, "b").await.unwrap()).await.unwrap(),
        b""
    );
    for absent in ["c", "../r1/b", ""] {
        assert!(
            store.open(&run, absent).await.unwrap().is_none(),
            "{absent}"
        );
    }
    store
        .store(&run, &[memory_file("b", b"again")])
        .await
        .unwrap();
    assert_eq!(
        read(store.open(&run, "b").await.unwrap()).await.unwrap(),
        b"again"
    );
    store.store(&RunId::new("none"), &[]).await.unwrap();
    assert!(!base.path().join("artifacts/none").exists());
}

#[tokio::test]
async fn local_store_rejects_names_that_are_paths() {
    let base = tempfile::tempdir().unwrap();
    let artifacts = LocalArtifacts::new(base.path().join("artifacts"));
    assert!(
        artifacts
            .store(&RunId::new("r1"), &[memory_file("../x", b"x")])
            .await
            .is_err()
    );
    assert!(
        artifacts
            .store(&RunId::new("../r1"), &[memory_file("x", b"x")])
            .await
            .is_err()
    );
    assert!(!base.path().join("x").exists());
}

#[tokio::test]
async fn health_check_fails_if_the_folder_cannot_be_written() {
    let base = tempfile::tempdir().unwrap();
    fs::write(base.path().join("file"), "").unwrap();
    let store = LocalArtifacts::new(base.path().join("file/artifacts"));
    assert!(store.health_check().await.is_err());
}
