//! Artifacts that wait.

use super::{
    CircuitBreaker, Clearing, Waiting, disk, files_of, folders_below, oldest_first, remove,
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

/// An artifact store with a backup before it.
pub struct FallbackArtifacts {
    store: Arc<dyn ArtifactStore>,
    backup: LocalArtifacts,
    away: CircuitBreaker,
    clearing: Clearing,
}

/// The artifacts in a backup.
pub struct SpooledArtifacts {
    store: Arc<dyn ArtifactStore>,
    folder: PathBuf,
    clearing: Clearing,
}

impl FallbackArtifacts {
    /// Keeps in `folder` what `store` cannot take now; also answers what waits there. One process uses a folder.
    pub fn new(store: Arc<dyn ArtifactStore>, folder: PathBuf) -> (Self, SpooledArtifacts) {
        let clearing = Clearing::default();
        let waiting = SpooledArtifacts {
            store: store.clone(),
            folder: folder.clone(),
            clearing: clearing.clone(),
        };
        (
            Self {
                store,
                backup: LocalArtifacts::new(folder),
                away: CircuitBreaker::default(),
                clearing,
            },
            waiting,
        )
    }
}

#[async_trait]
impl ArtifactStore for FallbackArtifacts {
    async fn store(&self, run: &RunId, files: &[SpooledFile]) -> Result<(), Fault> {
        if files.is_empty() {
            return Ok(());
        }
        if !self.away.is_away() {
            match self.store.store(run, files).await {
                Ok(()) => {
                    self.away.answered();
                    return Ok(());
                }
                Err(error) => {
                    self.away.failed();
                    tracing::warn!(run.id = %run, error = &error as &dyn std::error::Error, "artifacts go to the backup directory");
                }
            }
        }
        let _not_cleared = self.clearing.read().await;
        self.backup.store(run, files).await
    }

    async fn open(&self, run: &RunId, name: &str) -> Result<Option<FileReader>, Fault> {
        if let Some(waiting) = self.backup.open(run, name).await? {
            return Ok(Some(waiting));
        }
        self.store.open(run, name).await
    }

    async fn health_check(&self) -> Result<(), Fault> {
        self.store.health_check().await
    }
}

fn spooled(path: &Path) -> io::Result<SpooledFile> {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    Ok(SpooledFile {
        name,
        size: fs::metadata(path)?.len(),
        content: Content::File(path.to_owned()),
    })
}

#[async_trait]
impl Waiting for SpooledArtifacts {
    fn name(&self) -> &'static str {
        "artifacts"
    }

    fn folders(&self) -> io::Result<Vec<PathBuf>> {
        folders_below(&self.folder, 1).map(oldest_first)
    }

    async fn move_over(&self, folder: &Path) -> Result<(), Fault> {
        let run = RunId::new(
            folder
                .file_name()
                .map(|name| name.to_string_lossy().into_owned())
                .unwrap_or_default(),
        );
        let paths = files_of(folder).map_err(disk("read the backup directory"))?;
        let files = paths
            .iter()
            .map(|path| spooled(path))
            .collect::<io::Result<Vec<_>>>()
            .map_err(disk("read the backup directory"))?;
        self.store.store(&run, &files).await?;
        let _alone = self.clearing.write().await;
        remove(folder, &paths).map_err(disk("clear the backup directory"))
    }
}
