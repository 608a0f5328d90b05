//! The background task that moves spooled files to their stores.

use super::folders::modified;
use crate::{metrics::Metrics, ports::Fault};
use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// How often the backup directory is read while the stores work.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// The first delay after a failure; later ones grow.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// The longest delay after failures.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// The file that the draining process locks. Its name must stay: processes of other versions use
/// it, too.
const LOCK_FILE: &str = ".mover";

/// The spooled files of one store.
#[async_trait]
pub trait SpooledFiles: Send + Sync {
    /// Returns the label of the store in metrics.
    fn name(&self) -> &'static str;

    /// Returns the folders of the runs that have spooled files, the oldest first. What is odd among
    /// them is set aside.
    ///
    /// # Errors
    ///
    /// Returns the error of the file system.
    async fn folders(&self) -> io::Result<Vec<PathBuf>>;

    /// Stores the files of a run's folder in their store, and removes them here. A file that cannot
    /// be read is set aside.
    ///
    /// # Errors
    ///
    /// Returns [`Fault`] when the store or the file system fails; files that were not stored stay.
    async fn drain(&self, folder: &Path) -> Result<(), Fault>;

    /// Returns how many files and folders are set aside.
    fn set_aside(&self) -> usize;

    /// Checks that the store can be used right now.
    ///
    /// # Errors
    ///
    /// Returns [`Fault`] with the reason when it cannot.
    async fn health_check(&self) -> Result<(), Fault>;
}

/// Moves spooled files to their stores.
pub struct Drainer {
    spooled: Vec<Arc<dyn SpooledFiles>>,
    metrics: Arc<Metrics>,
    lock: File,
}

impl Drainer {
    /// Creates the drainer of a backup directory. Several processes may have one of the same
    /// directory; one of them works.
    ///
    /// # Errors
    ///
    /// Returns the error of the file system when the directory or its lock file cannot be created.
    pub fn new(
        directory: &Path,
        spooled: Vec<Arc<dyn SpooledFiles>>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self {
            spooled,
            metrics,
            lock: File::create(directory.join(LOCK_FILE))?,
        })
    }

    /// Moves all spooled files; returns whether nothing failed.
    #[tracing::instrument(name = "fallback.drainer.drain", level = "debug", skip_all)]
    pub async fn drain(&self) -> bool {
        let mut succeeded = true;
        for spooled in &self.spooled {
            succeeded &= self.drain_store(spooled.as_ref()).await;
        }
        succeeded
    }

    /// Moves the spooled files of one store; returns whether nothing failed. A run whose files
    /// cannot be stored keeps no other from it, unless the store as a whole cannot be used.
    async fn drain_store(&self, spooled: &dyn SpooledFiles) -> bool {
        let folders = match spooled.folders().await {
            Ok(folders) => folders,
            Err(error) => {
                tracing::error!(%error, "the backup directory cannot be read");
                return false;
            }
        };
        self.measure(spooled, &folders);
        let mut left = vec![];
        for (position, folder) in folders.iter().enumerate() {
            let Err(error) = spooled.drain(folder).await else {
                continue;
            };
            tracing::warn!(
                store = spooled.name(),
                folder = %folder.display(),
                error = &error as &dyn std::error::Error,
                "files stay in the backup directory"
            );
            left.push(folder.clone());
            if spooled.health_check().await.is_err() {
                left.extend(folders.iter().skip(position + 1).cloned());
                break;
            }
        }
        if left.len() < folders.len() {
            tracing::info!(
                store = spooled.name(),
                runs = folders.len() - left.len(),
                "files in the backup directory were moved to their store"
            );
        }
        self.measure(spooled, &left);
        left.is_empty()
    }

    /// Shows in the metrics what waits, the oldest first.
    fn measure(&self, spooled: &dyn SpooledFiles, folders: &[PathBuf]) {
        let age = |folder: &PathBuf| modified(folder).elapsed().unwrap_or_default().as_secs_f64();
        let oldest = folders.first().map(age).unwrap_or_default();
        self.metrics
            .waits_in_backup(spooled.name(), folders.len(), oldest, spooled.set_aside());
    }

    /// Moves spooled files for ever, with growing delays while a store fails.
    pub async fn run(&self) {
        let backoff = || {
            ExponentialBuilder::new()
                .with_min_delay(MIN_BACKOFF)
                .with_max_delay(MAX_BACKOFF)
                .with_jitter()
                .without_max_times()
                .build()
        };
        let mut delays = backoff();
        loop {
            // Two processes that drained at once would upload each file twice. The one without the
            // lock tries again, since the other may end.
            if self.lock.try_lock().is_err() || self.drain().await {
                delays = backoff();
                tokio::time::sleep(POLL_INTERVAL).await;
            } else {
                tokio::time::sleep(delays.next().unwrap_or(MAX_BACKOFF)).await;
            }
        }
    }
}
