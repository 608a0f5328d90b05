//! Artifacts with a local fallback.

use super::{
    circuit_breaker::CircuitBreaker,
    drainer::SpooledFiles,
    folders::{self, RemoveLock, disk_failed},
};
use crate::{
    adapters::local::LocalArtifacts,
    domain::name::RunId,
    ports::{
        ArtifactStore, Fault, SpooledFile,
        artifact_store::{Content, FileReader},
    },
};
use async_trait::async_trait;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// An artifact store that falls back to a local folder.
pub struct FallbackArtifacts {
    store: Arc<dyn ArtifactStore>,
    spool: LocalArtifacts,
    breaker: CircuitBreaker,
    remove_lock: RemoveLock,
}

/// The artifacts that are spooled for their store.
pub struct SpooledArtifacts {
    store: Arc<dyn ArtifactStore>,
    folder: PathBuf,
    remove_lock: RemoveLock,
}

impl FallbackArtifacts {
    /// Spools in `folder` what `store` fails to store; also returns what is spooled there, for the
    /// drainer.
    pub fn new(store: Arc<dyn ArtifactStore>, folder: PathBuf) -> (Self, SpooledArtifacts) {
        let remove_lock = RemoveLock::default();
        let spooled = SpooledArtifacts {
            store: store.clone(),
            folder: folder.clone(),
            remove_lock: remove_lock.clone(),
        };
        let this = Self {
            store,
            spool: LocalArtifacts::new(folder),
            breaker: CircuitBreaker::default(),
            remove_lock,
        };
        (this, spooled)
    }
}

#[async_trait]
impl ArtifactStore for FallbackArtifacts {
    #[tracing::instrument(
        name = "fallback.artifacts.store", level = "debug", skip_all,
        fields(run.id = %run, files = files.len())
    )]
    async fn store(&self, run: &RunId, files: &[SpooledFile]) -> Result<(), Fault> {
        if files.is_empty() {
            return Ok(());
        }
        if !self.breaker.is_open() {
            match self.store.store(run, files).await {
                Ok(()) => {
                    self.breaker.close();
                    return Ok(());
                }
                Err(error) => {
                    self.breaker.open();
                    tracing::warn!(
                        run.id = %run,
                        error = &error as &dyn std::error::Error,
                        "artifacts go to the backup directory"
                    );
                }
            }
        }
        let _shared = self.remove_lock.read().await;
        self.spool.store(run, files).await
    }

    #[tracing::instrument(
        name = "fallback.artifacts.open", level = "debug", skip_all, fields(run.id = %run, name)
    )]
    async fn open(&self, run: &RunId, name: &str) -> Result<Option<FileReader>, Fault> {
        // The spool first, so that spooled files are found while the store fails.
        if let Some(spooled) = self.spool.open(run, name).await? {
            return Ok(Some(spooled));
        }
        self.store.open(run, name).await
    }

    async fn health_check(&self) -> Result<(), Fault> {
        self.store.health_check().await
    }
}

fn spooled_file(path: &Path) -> io::Result<SpooledFile> {
    Ok(SpooledFile {
        name: folders::name_of(path),
        size: fs::metadata(path)?.len(),
        content: Content::File(path.to_owned()),
    })
}

#[async_trait]
impl SpooledFiles for SpooledArtifacts {
    fn name(&self) -> &'static str {
        "artifacts"
    }

    fn folders(&self) -> io::Result<Vec<PathBuf>> {
        folders::below(&self.folder, 1).map(folders::oldest_first)
    }

    async fn drain(&self, folder: &Path) -> Result<(), Fault> {
        let run = RunId::new(folders::name_of(folder));
        let paths = folders::files_in(folder).map_err(disk_failed("read the backup directory"))?;
        let files = paths
            .iter()
            .map(|path| spooled_file(path))
            .collect::<io::Result<Vec<_>>>()
            .map_err(disk_failed("read the backup directory"))?;
        self.store.store(&run, &files).await?;
        // Removed only after the store has them: a crash in between stores them again, which is
        // harmless.
        let _exclusive = self.remove_lock.write().await;
        folders::remove(folder, &paths).map_err(disk_failed("clear the backup directory"))
    }
}
