//! Logs with a local fallback. They are spooled compressed, as the local log store keeps them.

use super::{
    circuit_breaker::CircuitBreaker,
    drainer::SpooledFiles,
    folders::{self, Found, Odd, RemoveLock, SetAside, Spooled, disk_failed, is_odd},
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
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::Arc,
};
use tempfile::{NamedTempFile, TempPath};

/// How many bytes of a log are uncompressed at a time.
const CHUNK_SIZE: usize = 64 << 10;

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
    set_aside: SetAside,
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
            set_aside: SetAside::of(&folder),
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
        name = "fallback.log_store.store", level = "debug", skip_all,
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
        // The drainer would move what waits over newer files of the same names: these wait, too.
        let shared = self.remove_lock.read().await;
        if self.spool.has_run(folder).await? {
            return self.spool.store(folder, files, finished).await;
        }
        drop(shared);
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
        name = "fallback.log_store.open", level = "debug", skip_all,
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

/// Why a spooled log cannot be uncompressed.
enum NotPlain {
    /// It is no log that was spooled whole.
    Odd(io::Error),
    /// The disk failed.
    Disk(io::Error),
}

/// Uncompresses a spooled log into a file below `base`.
///
/// The spool keeps the compressed file, but a log store takes plain files: each compresses in its
/// own way.
fn uncompress(path: &Path, base: &Path) -> Result<PlainLog, NotPlain> {
    let odd_or_disk = |error: io::Error| match is_odd(&error) {
        true => NotPlain::Odd(error),
        false => NotPlain::Disk(error),
    };
    let mut gzip = GzDecoder::new(File::open(path).map_err(odd_or_disk)?);
    let mut file = NamedTempFile::with_prefix_in(".moving-", base).map_err(NotPlain::Disk)?;
    let (mut size, mut chunk) = (0, vec![0; CHUNK_SIZE]);
    loop {
        let read = gzip.read(&mut chunk).map_err(odd_or_disk)?;
        let Some(bytes) = chunk.get(..read).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        file.write_all(bytes).map_err(NotPlain::Disk)?;
        size += read as u64;
    }
    let finished = gzip.header().map_or(0, flate2::GzHeader::mtime);
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

/// Returns the codebase of a run's folder.
fn codebase_of(folder: &Path) -> Result<CodebaseName, Odd> {
    let parent = folder.parent().unwrap_or(folder);
    CodebaseName::new(folders::name_of(parent)).map_err(|e| Odd::new(parent, e))
}

impl SpooledLogs {
    /// Sets aside what is odd, and returns the rest.
    async fn good<T>(&self, found: Found<T>) -> Vec<T> {
        if !found.odd.is_empty() {
            let _exclusive = self.remove_lock.write().await;
            found.odd.iter().for_each(|odd| self.set_aside.put(odd));
        }
        found.good
    }

    /// Stores a log, and removes it here.
    async fn drain_file(
        &self,
        log_folder: &LogFolder,
        folder: &Path,
        file: Spooled,
    ) -> Result<(), Fault> {
        let (path, base) = (file.path.clone(), self.folder.clone());
        let uncompressed = off_thread("uncompress a log", move || uncompress(&path, &base)).await?;
        let PlainLog {
            log,
            finished,
            _file,
        } = match uncompressed {
            Ok(plain) => plain,
            Err(NotPlain::Odd(error)) => {
                let odd = vec![Odd::new(&file.path, error)];
                let found = Found::<()> {
                    odd,
                    ..Found::default()
                };
                self.good(found).await;
                return Ok(());
            }
            Err(NotPlain::Disk(error)) => {
                return Err(Fault::unavailable("read the backup directory", error));
            }
        };
        self.store
            .store(log_folder, std::slice::from_ref(&log), finished)
            .await?;
        // Removed only after the store has it: a crash in between stores it again, which is
        // harmless.
        let _exclusive = self.remove_lock.write().await;
        folders::remove(folder, &[file]).map_err(disk_failed("clear the backup directory"))
    }
}

#[async_trait]
impl SpooledFiles for SpooledLogs {
    fn name(&self) -> &'static str {
        "logs"
    }

    async fn folders(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = folders::below(&self.folder, 2)?;
        let mut odd = vec![];
        found.good.retain(|folder| match codebase_of(folder) {
            Ok(_) => true,
            Err(codebase) => {
                odd.push(codebase);
                false
            }
        });
        // Every run of such a codebase names it.
        odd.dedup();
        found.odd.extend(odd);
        if !found.empty.is_empty() {
            let _exclusive = self.remove_lock.write().await;
            // This fails when something is in it by now.
            found
                .empty
                .iter()
                .for_each(|folder| drop(std::fs::remove_dir(folder)));
        }
        let mut folders = self.good(found).await;
        folders::oldest_first(&mut folders);
        Ok(folders)
    }

    async fn drain(&self, folder: &Path) -> Result<(), Fault> {
        let action = "read the backup directory";
        let log_folder = LogFolder {
            codebase: codebase_of(folder).map_err(|odd| Fault::backend(action, odd.why))?,
            run: RunId::new(folders::name_of(folder)),
        };
        let found = folders::files_in(folder).map_err(disk_failed(action))?;
        let mut drained = Ok(());
        for file in self.good(found).await {
            match self.drain_file(&log_folder, folder, file).await {
                Ok(()) => {}
                Err(fault) if fault.is_unavailable() => return Err(fault),
                // One log that the store refuses keeps no other of its run from it.
                Err(fault) => drained = Err(fault),
            }
        }
        let _exclusive = self.remove_lock.write().await;
        // These succeed only for an empty folder, and the last run of the codebase.
        drop(std::fs::remove_dir(folder));
        drop(folder.parent().map(std::fs::remove_dir));
        drained
    }

    fn set_aside(&self) -> usize {
        self.set_aside.count()
    }

    async fn health_check(&self) -> Result<(), Fault> {
        self.store.health_check().await
    }
}
