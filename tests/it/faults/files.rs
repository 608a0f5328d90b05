//! The bucket is unavailable, refuses a write, or the disk is full.

use crate::support::{
    load::{Load, assert_nothing_lost},
    process::Server,
    servers::{self, Private},
    start,
    values::codebase_name,
};
use async_trait::async_trait;
use janitor_runner::{
    adapters::objects::{ObjectLogs, Objects, PutError},
    domain::name::RunId,
    ports::{
        Fault, LogStore, SpooledFile,
        artifact_store::{Content, FileReader},
        log_store::LogFolder,
    },
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::io::AsyncReadExt;

fn settings(gcs: &str, bucket: &str, home: &Path) -> String {
    format!(
        "artifacts = \"gs://{bucket}/\"\nlogs = \"gs://{bucket}/\"\nbackup_directory = \"{}\"\ngcs = {{ endpoint = \"{gcs}\", credentials = \"anonymous\" }}\n",
        home.join("backup").display()
    )
}

async fn object(gcs: &str, bucket: &str, name: &str) -> Option<Vec<u8>> {
    let url = format!(
        "{gcs}/storage/v1/b/{bucket}/o/{}?alt=media",
        name.replace('/', "%2F")
    );
    let response = crate::support::process::client()
        .get(url)
        .send()
        .await
        .unwrap();
    if response.status() == 200 {
        Some(response.bytes().await.unwrap().to_vec())
    } else {
        None
    }
}

/// The number of runs whose files wait in the backup directory.
fn spooled_folders(home: &Path) -> usize {
    let folders = |path: &Path| {
        std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|e| !e.file_name().to_string_lossy().starts_with('.'))
            .count()
    };
    folders(&home.join("backup/artifacts")) + folders(&home.join("backup/logs"))
}

async fn drainer_moves_every_folder(server: &Server) {
    for _ in 0..600 {
        if spooled_folders(&server.home) == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!(
        "{} folders still wait: {}",
        spooled_folders(&server.home),
        server.log()
    );
}

async fn interrupt_gcs_under_load(down: &str, up: &str) {
    let mut private = Private::start(&["gcs"]);
    let gcs = private.url("gcs");
    let bucket = servers::new_bucket(&gcs).await;
    let home = tempfile::tempdir().unwrap();
    let mut server = Server::start(
        home.path(),
        &servers::database().await,
        &settings(&gcs, &bucket, home.path()),
    )
    .await;
    server.add_worker("w1", "secret1").await;
    let load = Load::start(&[&server], 4);
    tokio::time::sleep(Duration::from_secs(1)).await;
    private.control(down, "gcs");
    let before = load.load.finished();
    // A stopped bucket times out after five seconds without a byte; later files are spooled immediately.
    tokio::time::sleep(Duration::from_secs(if down == "stop" { 11 } else { 2 })).await;
    assert!(
        load.load.finished() > before + 10,
        "runs are not finished while the bucket is unavailable"
    );
    assert_eq!(server.get("/ready").await.0, 200);
    let (_, metrics) = server.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("janitor_runner_backup_runs"), "{metrics}");
    let waited = spooled_folders(home.path());
    assert!(waited > 10, "{waited} folders wait");
    // Waiting files are found again after a restart, and can be read while they wait.
    server.kill();
    server.run().await;
    private.control(up, "gcs");
    if down == "kill" {
        // The fake GCS loses its buckets when it is killed.
        servers::create_bucket(&gcs, &bucket).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = load.stop().await;
    drainer_moves_every_folder(&server).await;
    println!(
        "GCS {down}: {} results acknowledged, {waited} folders waited, responses {:?}, slowest {:?}",
        seen.results.len(),
        seen.statuses,
        seen.slowest
    );
    let mut stored = 0;
    for id in seen.results.keys() {
        if let Some(found) = object(&gcs, &bucket, &format!("{id}/out")).await {
            assert_eq!(found, id.as_bytes());
            stored += 1;
        }
    }
    if down == "stop" {
        assert_eq!(stored, seen.results.len());
        assert_nothing_lost(&server, &seen).await;
    } else {
        // All but those that the fake GCS lost when it was killed.
        assert!(
            stored >= seen.results.len() - before - 4,
            "{stored} of {} are there, {before} were lost",
            seen.results.len()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_gcs_loses_nothing() {
    interrupt_gcs_under_load("stop", "continue").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_gcs_loses_nothing() {
    interrupt_gcs_under_load("kill", "start").await;
}

/// A bucket in memory that refuses to overwrite objects.
#[derive(Default)]
struct Strict(Mutex<BTreeMap<String, Vec<u8>>>);

#[async_trait]
impl Objects for Strict {
    async fn put(&self, name: &str, content: &Content, _: u64) -> Result<(), PutError> {
        let mut objects = self.0.lock().unwrap();
        if objects.contains_key(name) {
            return Err(PutError::Refused(Fault::refused("store", "exists")));
        }
        let Content::Memory(bytes) = content else {
            panic!("a small file is in memory")
        };
        objects.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Option<FileReader>, Fault> {
        let found = self.0.lock().unwrap().get(name).cloned();
        Ok(found.map(|bytes| Box::new(std::io::Cursor::new(bytes)) as FileReader))
    }

    async fn health_check(&self) -> Result<(), Fault> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_overwrite_stores_a_different_log_beside() {
    let strict = Arc::new(Strict::default());
    let store = ObjectLogs::new(strict.clone(), "");
    let folder = LogFolder {
        codebase: codebase_name("aa"),
        run: RunId::new("r1"),
    };
    let log = |text: &str| SpooledFile {
        name: "w.log".into(),
        content: Content::Memory(text.to_owned().into()),
        size: text.len() as u64,
    };
    store
        .store(&folder, &[log("first")], start())
        .await
        .unwrap();
    store
        .store(&folder, &[log("first")], start())
        .await
        .unwrap();
    assert_eq!(
        strict.0.lock().unwrap().keys().collect::<Vec<_>>(),
        ["aa/r1/w.log.gz"]
    );
    store
        .store(&folder, &[log("second")], start())
        .await
        .unwrap();
    assert_eq!(
        strict.0.lock().unwrap().keys().collect::<Vec<_>>(),
        ["aa/r1/w.log.20261123T100000.gz", "aa/r1/w.log.gz"]
    );
    let mut text = String::new();
    store
        .open(&folder, "w.log")
        .await
        .unwrap()
        .unwrap()
        .read_to_string(&mut text)
        .await
        .unwrap();
    assert_eq!(text, "first");
    assert!(
        store
            .store(&folder, &[log("third")], start())
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_spool_loses_no_acknowledged_result() {
    let home = tempfile::tempdir().unwrap();
    // A file system of one megabyte in a mount namespace of the server's own.
    let server = Server::on_small_spool(home.path(), &servers::database().await).await;
    server.add_worker("w1", "secret1").await;
    server.queue("big", "gen").await;
    let taken = server.claim_of("big").await;
    let load = Load::start(&[&server], 2);
    let too_much = vec![7_u8; 3 << 20];
    let report = json!({ "code": "success", "target": { "name": "generic" } });
    for _ in 0..3 {
        let (status, body) = server
            .finish(&taken, &report, &[("big.bin", &too_much)])
            .await;
        assert_eq!(status, 503, "{body}");
    }
    assert_eq!(server.get(&format!("/active-runs/{taken}")).await.0, 200);
    assert_eq!(
        server
            .finish(&taken, &report, &[("small.bin", b"x")])
            .await
            .0,
        201
    );
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = load.stop().await;
    println!(
        "spool full: {} results of others acknowledged, responses {:?}",
        seen.results.len(),
        seen.statuses
    );
    assert!(seen.results.len() > 5);
    assert_nothing_lost(&server, &seen).await;
}
