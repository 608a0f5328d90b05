//! Logs in a directory: `BASE/CODEBASE/RUN_ID/NAME.gz`.

use super::{absent_is_none, blocking, check_writable, sync_folder, write_atomically};
use crate::{
    adapters::support::gzip,
    domain::{log_name::validate_file_name, time::Time},
    ports::{Fault, LogStore, SpooledFile, artifact_store::FileReader, log_store::LogFolder},
};
use async_trait::async_trait;
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

/// Logs in a directory.
#[derive(Debug, Clone)]
pub struct LocalLogs {
    base: PathBuf,
}

impl LocalLogs {
    /// Keeps logs below `base`, which is created when needed.
    pub fn new(base: PathBuf) -> Self {
        Self { base }
    }

    /// Returns whether there are logs of a run.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the file system fails.
    pub(in crate::adapters) async fn has_run(&self, folder: &LogFolder) -> Result<bool, Fault> {
        let folder = self.folder(folder)?;
        blocking("look for logs", move || folder.try_exists()).await
    }

    /// Returns the folder of a run. A run id that is not a plain file name could lead out of the
    /// base.
    fn folder(&self, folder: &LogFolder) -> Result<PathBuf, Fault> {
        validate_file_name(folder.run.as_str())
            .map_err(|e| Fault::backend("name a run's folder", e))?;
        Ok(self
            .base
            .join(folder.codebase.as_str())
            .join(folder.run.as_str()))
    }
}

fn write_compressed(
    log: &SpooledFile,
    base: &Path,
    folder: &Path,
    finished: u32,
) -> io::Result<()> {
    validate_file_name(&log.name).map_err(io::Error::other)?;
    write_atomically(base, &folder.join(format!("{}.gz", log.name)), |out| {
        gzip::compress(&log.content, finished, out)
    })
}

/// Creates a run's folder, and its codebase's if that is new.
fn create_folder(folder: &Path) -> io::Result<()> {
    let ignore_existing = |created: io::Result<()>| {
        created.or_else(|e| {
            if e.kind() == io::ErrorKind::AlreadyExists {
                Ok(())
            } else {
                Err(e)
            }
        })
    };
    match ignore_existing(folder.parent().map_or(Ok(()), fs::create_dir)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => fs::create_dir_all(folder),
        parent => parent.and_then(|()| ignore_existing(fs::create_dir(folder))),
    }
}

#[async_trait]
impl LogStore for LocalLogs {
    #[tracing::instrument(
        name = "local.log_store.store", level = "debug", skip_all,
        fields(run.id = %folder.run, files = files.len())
    )]
    async fn store(
        &self,
        folder: &LogFolder,
        files: &[SpooledFile],
        finished: Time,
    ) -> Result<(), Fault> {
        let (base, folder, files) = (self.base.clone(), self.folder(folder)?, files.to_vec());
        if files.is_empty() {
            return Ok(());
        }
        let finished = u32::try_from(finished.timestamp()).unwrap_or(0);
        blocking("store logs", move || {
            create_folder(&folder)?;
            files
                .iter()
                .try_for_each(|log| write_compressed(log, &base, &folder, finished))?;
            // They must survive a crash once this returns: the names of the files, and those of the
            // folders, which may be new.
            sync_folder(&folder)?;
            folder.parent().map_or(Ok(()), sync_folder)?;
            sync_folder(&base)
        })
        .await
    }

    #[tracing::instrument(
        name = "local.log_store.open", level = "debug", skip_all, fields(run.id = %folder.run, name)
    )]
    async fn open(&self, folder: &LogFolder, name: &str) -> Result<Option<FileReader>, Fault> {
        if validate_file_name(name).is_err() {
            return Ok(None);
        }
        let folder = self.folder(folder)?;
        let (compressed, plain) = (folder.join(format!("{name}.gz")), folder.join(name));
        let found = blocking("open a log", move || {
            Ok(match absent_is_none(File::open(compressed))? {
                Some(file) => Some((file, true)),
                None => absent_is_none(File::open(plain))?.map(|file| (file, false)),
            })
        });
        Ok(found.await?.map(|(file, gzip)| match gzip {
            true => gzip::uncompressed(tokio::fs::File::from_std(file)),
            false => Box::new(tokio::fs::File::from_std(file)) as FileReader,
        }))
    }

    async fn health_check(&self) -> Result<(), Fault> {
        let base = self.base.clone();
        blocking("check the logs' folder", move || check_writable(&base)).await
    }
}
