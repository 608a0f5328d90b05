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

    /// Returns the folders of the runs that have spooled files, the oldest first.
    ///
    /// # Errors
    ///
    /// Returns the error of the file system.
    fn folders(&self) -> io::Result<Vec<PathBuf>>;

    /// Stores the files of a run's folder in their store, and removes them here.
    ///
    /// # Errors
    ///
    /// Returns [`Fault`] when the store or the file system fails; files that were not stored stay.
    async fn drain(&self, folder: &Path) -> Result<(), Fault>;
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

    /// Moves all spooled files, of each store until something fails; returns whether nothing
    /// failed.
    #[tracing::instrument(name = "fallback.drainer.drain", level = "debug", skip_all)]
    pub async fn drain(&self) -> bool {
        let mut succeeded = true;
        for spooled in &self.spooled {
            let folders = match spooled.folders() {
                Ok(folders) => folders,
                Err(error) => {
                    tracing::error!(%error, "the backup directory cannot be read");
                    succeeded = false;
                    continue;
                }
            };
            let age =
                |folder: &PathBuf| modified(folder).elapsed().unwrap_or_default().as_secs_f64();
            self.metrics.waits_in_backup(
                spooled.name(),
                folders.len(),
                folders.first().map(age).unwrap_or_default(),
            );
            for folder in &folders {
                if let Err(error) = spooled.drain(folder).await {
                    tracing::warn!(
                        store = spooled.name(),
                        error = &error as &dyn std::error::Error,
                        "files stay in the backup directory"
                    );
                    succeeded = false;
                    break;
                }
            }
            if succeeded && !folders.is_empty() {
                tracing::info!(
                    store = spooled.name(),
                    runs = folders.len(),
                    "the files in the backup directory were moved to their store"
                );
                self.metrics.waits_in_backup(spooled.name(), 0, 0.0);
            }
        }
        succeeded
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
