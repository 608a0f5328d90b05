//! Logs that wait, compressed as they will be.

use super::{
    CircuitBreaker, Clearing, Waiting, disk, files_of, folders_below, oldest_first, remove,
};
use crate::{
    adapters::{local::LocalLogs, off_thread},
    domain::{
        name::{CodebaseName, RunId},
        time::Time,
    },
    ports::{
        Fault, LogStore, SpooledFile,
        artifact_store::{Content, FileReader},
        log_store::LogFolder,
    },
};
use async_trait::async_trait;
use chrono::DateTime;
use flate2::read::GzDecoder;
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::{NamedTempFile, TempPath};

/// A log store with a backup before it.
pub struct FallbackLogs {
    store: Arc<dyn LogStore>,
    backup: LocalLogs,
    away: CircuitBreaker,
    clearing: Clearing,
}

/// The logs in a backup.
pub struct SpooledLogs {
    store: Arc<dyn LogStore>,
    folder: PathBuf,
    clearing: Clearing,
}

impl FallbackLogs {
    /// Keeps in `folder` what `store` cannot take now; also answers what waits there. One process uses a folder.
    pub fn new(store: Arc<dyn LogStore>, folder: PathBuf) -> (Self, SpooledLogs) {
        let clearing = Clearing::default();
        let waiting = SpooledLogs {
            store: store.clone(),
            folder: folder.clone(),
            clearing: clearing.clone(),
        };
        (
            Self {
                store,
                backup: LocalLogs::new(folder),
                away: CircuitBreaker::default(),
                clearing,
            },
            waiting,
        )
    }
}

#[async_trait]
impl LogStore for FallbackLogs {
    async fn store(
        &self,
        folder: &LogFolder,
        files: &[SpooledFile],
        finished: Time,
    ) -> Result<(), Fault> {
        if files.is_empty() {
            return Ok(());
        }
        if !self.away.is_away() {
            match self.store.store(folder, files, finished).await {
                Ok(()) => {
                    self.away.answered();
                    return Ok(());
                }
                Err(error) => {
                    self.away.failed();
                    tracing::warn!(run.id = %folder.run, error = &error as &dyn std::error::Error, "logs go to the backup directory");
                }
            }
        }
        let _not_cleared = self.clearing.read().await;
        self.backup.store(folder, files, finished).await
    }

    async fn open(&self, folder: &LogFolder, name: &str) -> Result<Option<FileReader>, Fault> {
        if let Some(waiting) = self.backup.open(folder, name).await? {
            return Ok(Some(waiting));
        }
        self.store.open(folder, name).await
    }

    async fn health_check(&self) -> Result<(), Fault> {
        self.store.health_check().await
    }
}

/// A log, uncompressed into a file beside it that lives as long as the second value; and when its run finished.
fn plain(path: &Path, beside: &Path) -> io::Result<(SpooledFile, TempPath, Time)> {
    let mut gzip = GzDecoder::new(File::open(path)?);
    let finished = gzip.header().map_or(0, flate2::GzHeader::mtime);
    let mut file = NamedTempFile::with_prefix_in(".moving-", beside)?;
    let size = io::copy(&mut gzip, file.as_file_mut())?;
    let file = file.into_temp_path();
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let name = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
    let spooled = SpooledFile {
        name,
        content: Content::File(file.to_path_buf()),
        size,
    };
    Ok((
        spooled,
        file,
        DateTime::from_timestamp(finished.into(), 0).unwrap_or_default(),
    ))
}

#[async_trait]
impl Waiting for SpooledLogs {
    fn name(&self) -> &'static str {
        "logs"
    }

    fn folders(&self) -> io::Result<Vec<PathBuf>> {
        folders_below(&self.folder, 2).map(oldest_first)
    }

    async fn move_over(&self, folder: &Path) -> Result<(), Fault> {
        let action = "read the backup directory";
        let part = |path: Option<&Path>| {
            path.and_then(Path::file_name)
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default()
        };
        let codebase =
            CodebaseName::new(part(folder.parent())).map_err(|e| Fault::backend(action, e))?;
        let of = LogFolder {
            codebase,
            run: RunId::new(part(Some(folder))),
        };
        let paths = files_of(folder).map_err(disk(action))?;
        let (from, beside) = (paths.clone(), self.folder.clone());
        let read = off_thread(action, move || {
            from.iter()
                .map(|path| plain(path, &beside))
                .collect::<io::Result<Vec<_>>>()
        });
        let logs = read.await?.map_err(disk(action))?;
        for (log, _kept, finished) in &logs {
            self.store
                .store(&of, std::slice::from_ref(log), *finished)
                .await?;
        }
        let _alone = self.clearing.write().await;
        remove(folder, &paths).map_err(disk("clear the backup directory"))?;
        // The codebase's folder goes with its last run.
        drop(folder.parent().map(std::fs::remove_dir));
        Ok(())
    }
}
