//! Steps of the tests of buckets.

use crate::support::{fake_bucket::FakeBucket, values::codebase_name};
use janitor_runner::{
    adapters::{
        fallback::{Drainer, FallbackArtifacts, FallbackLogs, SpooledFiles},
        objects::{ObjectArtifacts, ObjectLogs, Objects},
    },
    domain::name::RunId,
    metrics::Metrics,
    ports::log_store::LogFolder,
};
use std::{fs, path::Path, sync::Arc, time::Duration};

/// Runs each case with S3 and with GCS.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod s3 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::Kind::S3).await;
            })+
        }
        mod gcs {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::Kind::Gcs).await;
            })+
        }
    };
}
pub(crate) use on_both;

pub fn folder(run: &str) -> LogFolder {
    LogFolder {
        codebase: codebase_name("aa"),
        run: RunId::new(run),
    }
}

/// The files below a directory, without those whose names begin with a dot.
pub fn files_below(base: &Path) -> usize {
    let Ok(entries) = fs::read_dir(base) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => files_below(&entry.path()),
            false => 1,
        })
        .sum()
}

pub async fn uploads_are_closed(bucket: &FakeBucket) {
    for _ in 0..200 {
        if bucket.open_uploads() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} uploads stay open", bucket.open_uploads());
}

/// Stores with a backup directory below `home`.
pub struct Stores {
    pub artifacts: FallbackArtifacts,
    pub logs: FallbackLogs,
    pub drainer: Drainer,
}

impl Stores {
    pub fn new(objects: Arc<dyn Objects>, home: &Path) -> Self {
        let backup = home.join("backup");
        let artifacts = Arc::new(ObjectArtifacts::new(objects.clone()));
        let (artifacts, spooled) = FallbackArtifacts::new(artifacts, backup.join("artifacts"));
        let logs = Arc::new(ObjectLogs::new(objects, ""));
        let (logs, spooled_logs) = FallbackLogs::new(logs, backup.join("logs"));
        let spooled: Vec<Arc<dyn SpooledFiles>> = vec![Arc::new(spooled_logs), Arc::new(spooled)];
        let drainer = Drainer::new(&backup, spooled, Arc::new(Metrics::new())).unwrap();
        Self {
            artifacts,
            logs,
            drainer,
        }
    }
}
