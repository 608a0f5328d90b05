//! Logs with a local fallback. They are spooled compressed, as the local log store keeps them.

use super::{
    circuit_breaker::CircuitBreaker,
    drainer::SpooledFiles,
    folders::{self, RemoveLock, disk_failed},
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

/// A log store that falls back to a local folder.
pub struct FallbackLogs {
    store: Arc<dyn LogStore>,
    spool: LocalLogs,
    breaker: CircuitBreaker,
    remove_lock: RemoveLock,
}

/// The logs that are spooled for their store.
pub struct SpooledLogs {
    store: Arc<dyn LogStore>,
    folder: PathBuf,
    remove_lock: RemoveLock,
}

impl FallbackLogs {
    /// Spools in `folder` what `store` fails to store; also returns what is spooled there, for the
    /// drainer.
    pub fn new(store: Arc<dyn LogStore>, folder: PathBuf) -> (Self, SpooledLogs) {
        let remove_lock = RemoveLock::default();
        let spooled = SpooledLogs {
            store: store.clone(),
            folder: folder.clone(),
            remove_lock: remove_lock.clone(),
        };
        let this = Self {
            store,
            spool: LocalLogs::new(folder),
            breaker: CircuitBreaker::default(),
            remove_lock,
        };
        (this, spooled)
    }
}

#[async_trait]
impl LogStore for FallbackLogs {
    #[tracing::instrument(
        name = "fallback.logs.store", level = "debug", skip_all,
        fields(run.id = %folder.run, files = files.len())
    )]
    async fn store(
        &self,
        folder: &LogFolder,
        files: &[SpooledFile],
        finished: Time,
    ) -> Result<(), Fault> {
        if files.is_empty() {
            return Ok(());
        }
        if !self.breaker.is_open() {
            match self.store.store(folder, files, finished).await {
                Ok(()) => {
                    self.breaker.close();
                    return Ok(());
                }
                Err(error) => {
                    self.breaker.open();
                    tracing::warn!(
                        run.id = %folder.run,
                        error = &error as &dyn std::error::Error,
                        "logs go to the backup directory"
                    );
                }
            }
        }
        let _shared = self.remove_lock.read().await;
        self.spool.store(folder, files, finished).await
    }

    #[tracing::instrument(
        name = "fallback.logs.open", level = "debug", skip_all,
        fields(run.id = %folder.run, name)
    )]
    async fn open(&self, folder: &LogFolder, name: &str) -> Result<Option<FileReader>, Fault> {
        // The spool first, so that spooled files are found while the store fails.
        if let Some(spooled) = self.spool.open(folder, name).await? {
            return Ok(Some(spooled));
        }
        self.store.open(folder, name).await
    }

    async fn health_check(&self) -> Result<(), Fault> {
        self.store.health_check().await
    }
}

/// A spooled log, uncompressed.
struct PlainLog {
    log: SpooledFile,
    /// When its run finished, as the header of the compressed file says.
    finished: Time,
    /// Removes the uncompressed file when dropped.
    _file: TempPath,
}

/// Uncompresses a spooled log into a file below `base`.
///
/// The spool keeps the compressed file, but a log store takes plain files: each compresses in its
/// own way.
fn uncompress(path: &Path, base: &Path) -> io::Result<PlainLog> {
    let mut gzip = GzDecoder::new(File::open(path)?);
    let finished = gzip.header().map_or(0, flate2::GzHeader::mtime);
    let mut file = NamedTempFile::with_prefix_in(".moving-", base)?;
    let size = io::copy(&mut gzip, file.as_file_mut())?;
    let file = file.into_temp_path();
    let name = folders::name_of(path);
    let name = name.strip_suffix(".gz").unwrap_or(&name).to_owned();
    Ok(PlainLog {
        log: SpooledFile {
            name,
            content: Content::File(file.to_path_buf()),
            size,
        },
        finished: DateTime::from_timestamp(finished.into(), 0).unwrap_or_default(),
        _file: file,
    })
}

#[async_trait]
impl SpooledFiles for SpooledLogs {
    fn name(&self) -> &'static str {
        "logs"
    }

    fn folders(&self) -> io::Result<Vec<PathBuf>> {
        folders::below(&self.folder, 2).map(folders::oldest_first)
    }

    async fn drain(&self, folder: &Path) -> Result<(), Fault> {
        let action = "read the backup directory";
        let codebase = folder.parent().map(folders::name_of).unwrap_or_default();
        let codebase = CodebaseName::new(codebase).map_err(|e| Fault::backend(action, e))?;
        let log_folder = LogFolder {
            codebase,
            run: RunId::new(folders::name_of(folder)),
        };
        let paths = folders::files_in(folder).map_err(disk_failed(action))?;
        let (compressed, base) = (paths.clone(), self.folder.clone());
        let uncompressing = off_thread(action, move || {
            compressed
                .iter()
                .map(|path| uncompress(path, &base))
                .collect::<io::Result<Vec<_>>>()
        });
        let logs = uncompressing.await?.map_err(disk_failed(action))?;
        for PlainLog { log, finished, .. } in &logs {
            self.store
                .store(&log_folder, std::slice::from_ref(log), *finished)
                .await?;
        }
        // Removed only after the store has them: a crash in between stores them again, which is
        // harmless.
        let _exclusive = self.remove_lock.write().await;
        folders::remove(folder, &paths).map_err(disk_failed("clear the backup directory"))?;
        // Succeeds only for the last run of the codebase.
        drop(folder.parent().map(std::fs::remove_dir));
        Ok(())
    }
}
