//! The disk of an embedded store is full.

use crate::support::{
    load::{Load, assert_nothing_lost},
    process::Server,
};
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// A small file system in memory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: PathBuf) -> Self {
        fs::create_dir(&folder).unwrap();
        let options = ["-t", "tmpfs", "-o", "size=64m", "small"];
        let mounted = Command::new("mount").args(options).arg(&folder).status();
        assert!(mounted.unwrap().success());
        Self(folder)
    }

    /// Leaves no space on it.
    fn fill(&self) -> PathBuf {
        let file = self.0.join("full");
        assert!(fs::write(&file, vec![0; 128 << 20]).is_err());
        file
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

/// The service ends, so that a supervisor starts it again, and has lost nothing.
async fn full_disk_ends_the_service(home: &Path, engine: &str) {
    let disk = SmallDisk::mount(home.join("disk"));
    let store = format!("{engine}:{}", disk.0.join("db").display());
    let mut server = Server::start(home, &store, "").await;
    server.add_worker("w1", "secret1").await;
    let load = Load::start(&[&server], 4);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let full = disk.fill();
    let ended = tokio::time::timeout(Duration::from_secs(60), server.wait_for_exit());
    assert!(!ended.await.unwrap(), "it ended as if nothing had happened");
    let log = server.log();
    assert!(log.contains("the store has failed"), "{log}");
    fs::remove_file(full).unwrap();
    server.run().await;
    let seen = load.stop().await;
    assert!(seen.results.len() > 5, "{}", seen.results.len());
    assert_nothing_lost(&server, &seen).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_of_sled_ends_the_service_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    full_disk_ends_the_service(home.path(), "sled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disk_of_redb_ends_the_service_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    full_disk_ends_the_service(home.path(), "redb").await;
}
