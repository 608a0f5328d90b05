//! Files wait in a local directory while their store is away: below `artifacts/RUN_ID/` and `logs/CODEBASE/RUN_ID/`, as
//! the local stores lay them out, so that whatever a crash leaves is found again. A background task moves them over.

mod artifacts;
mod logs;

pub use artifacts::{FallbackArtifacts, SpooledArtifacts};
pub use logs::{FallbackLogs, SpooledLogs};

use crate::{metrics::Metrics, ports::Fault};
use async_trait::async_trait;
use backon::{BackoffBuilder, ExponentialBuilder};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// After a failure of the store, files go to the backup at once for so long.
const LEFT_ALONE: Duration = Duration::from_secs(5);
/// How often the backup is looked at while all is well.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Until when a store is not asked, since it failed a moment ago.
#[derive(Debug, Default)]
struct CircuitBreaker(Mutex<Option<Instant>>);

impl CircuitBreaker {
    fn is_away(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
    }

    fn failed(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + LEFT_ALONE);
    }

    fn answered(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Held for writing while folders are cleared away, and for reading while files are put into some.
type Clearing = Arc<tokio::sync::RwLock<()>>;

/// What waits in a backup.
#[async_trait]
pub trait Waiting: Send + Sync {
    /// What it is called in the figures.
    fn name(&self) -> &'static str;

    /// The folders of runs that wait, the oldest first.
    fn folders(&self) -> io::Result<Vec<PathBuf>>;

    /// Stores a run's files where they belong, and removes them here.
    async fn move_over(&self, folder: &Path) -> Result<(), Fault>;
}

/// A failure that says that the file system is at fault.
fn disk(action: &'static str) -> impl FnOnce(io::Error) -> Fault {
    move |error| Fault::unavailable(action, error)
}

/// Folders below `base`, so many levels deep; those that begin with a dot are not runs'.
fn folders_below(base: &Path, levels: u32) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(base) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries?,
    };
    let mut found = vec![];
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_dir() || entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if levels > 1 {
            found.extend(folders_below(&entry.path(), levels - 1)?);
        } else {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn changed(path: &Path) -> SystemTime {
    fs::metadata(path)
        .and_then(|about| about.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

fn oldest_first(mut folders: Vec<PathBuf>) -> Vec<PathBuf> {
    folders.sort_by_key(|folder| changed(folder));
    folders
}

fn files_of(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    Ok(entries
        .into_iter()
        .map(|entry| entry.path())
        .filter(|path| path.is_file())
        .collect())
}

/// Removes a run's files that were moved over; others that came meanwhile stay.
fn remove(folder: &Path, files: &[PathBuf]) -> io::Result<()> {
    for file in files {
        match fs::remove_file(file) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    // The folder goes with its last file.
    drop(fs::remove_dir(folder));
    Ok(())
}

/// Moves what waits to where it belongs.
pub struct Drainer {
    waiting: Vec<Arc<dyn Waiting>>,
    metrics: Arc<Metrics>,
    lock: File,
}

impl Drainer {
    /// Works on a backup directory; one process at a time does.
    pub fn new(
        directory: &Path,
        waiting: Vec<Arc<dyn Waiting>>,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        Ok(Self {
            waiting,
            metrics,
            lock: File::create(directory.join(".mover"))?,
        })
    }

    /// Moves all that waits, until something fails; answers whether nothing did.
    pub async fn round(&self) -> bool {
        let mut well = true;
        for waiting in &self.waiting {
            let folders = match waiting.folders() {
                Ok(folders) => folders,
                Err(error) => {
                    tracing::error!(%error, "the backup directory cannot be read");
                    well = false;
                    continue;
                }
            };
            let age =
                |folder: &PathBuf| changed(folder).elapsed().unwrap_or_default().as_secs_f64();
            self.metrics.waits_in_backup(
                waiting.name(),
                folders.len(),
                folders.first().map(age).unwrap_or_default(),
            );
            for folder in &folders {
                if let Err(error) = waiting.move_over(folder).await {
                    tracing::warn!(
                        store = waiting.name(),
                        error = &error as &dyn std::error::Error,
                        "files wait in the backup directory"
                    );
                    well = false;
                    break;
                }
            }
            if well && !folders.is_empty() {
                tracing::info!(
                    store = waiting.name(),
                    runs = folders.len(),
                    "files that waited in the backup directory are where they belong"
                );
                self.metrics.waits_in_backup(waiting.name(), 0, 0.0);
            }
        }
        well
    }

    /// Moves for ever, with growing pauses while the store is away.
    pub async fn run(&self) {
        let pauses = || {
            ExponentialBuilder::new()
                .with_min_delay(Duration::from_secs(1))
                .with_max_delay(LONGEST_WAIT)
                .with_jitter()
                .without_max_times()
                .build()
        };
        let mut pause = pauses();
        loop {
            // Another process on the same directory moves; this one may follow.
            if self.lock.try_lock().is_err() || self.round().await {
                pause = pauses();
                tokio::time::sleep(LOOK_EVERY).await;
            } else {
                tokio::time::sleep(pause.next().unwrap_or(LONGEST_WAIT)).await;
            }
        }
    }
}
