//! Artifacts with a local fallback.

use super::{
    circuit_breaker::CircuitBreaker,
    drainer::SpooledFiles,
    folders::{self, Found, RemoveLock, SetAside, Spooled, disk_failed},
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
    io,
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
    set_aside: SetAside,
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
            set_aside: SetAside::of(&folder),
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
        name = "fallback.artifact_store.store", level = "debug", skip_all,
        fields(run.id = %run, files = files.len())
    )]
    async fn store(&self, run: &RunId, files: &[SpooledFile]) -> Result<(), Fault> {
        if files.is_empty() {
            return Ok(());
        }
        // The drainer would move what waits over newer files of the same names: these wait, too.
        let shared = self.remove_lock.read().await;
        if self.spool.has_run(run).await? {
            return self.spool.store(run, files).await;
        }
        drop(shared);
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
        name = "fallback.artifact_store.open", level = "debug", skip_all, fields(run.id = %run, name)
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

fn spooled_file(file: &Spooled) -> SpooledFile {
    SpooledFile {
        name: folders::name_of(&file.path),
        size: file.size,
        content: Content::File(file.path.clone()),
    }
}

impl SpooledArtifacts {
    /// Sets aside what is odd, and returns the rest.
    async fn good<T>(&self, found: Found<T>) -> Vec<T> {
        if !found.odd.is_empty() {
            let _exclusive = self.remove_lock.write().await;
            found.odd.iter().for_each(|odd| self.set_aside.put(odd));
        }
        found.good
    }

    /// Stores files, and removes them here.
    async fn drain_files(
        &self,
        run: &RunId,
        folder: &Path,
        files: &[Spooled],
    ) -> Result<(), Fault> {
        let spooled: Vec<_> = files.iter().map(spooled_file).collect();
        self.store.store(run, &spooled).await?;
        // Removed only after the store has them: a crash in between stores them again, which is
        // harmless.
        let _exclusive = self.remove_lock.write().await;
        folders::remove(folder, files).map_err(disk_failed("clear the backup directory"))
    }
}

#[async_trait]
impl SpooledFiles for SpooledArtifacts {
    fn name(&self) -> &'static str {
        "artifacts"
    }

    async fn folders(&self) -> io::Result<Vec<PathBuf>> {
        let mut folders = self.good(folders::below(&self.folder, 1)?).await;
        folders::oldest_first(&mut folders);
        Ok(folders)
    }

    async fn drain(&self, folder: &Path) -> Result<(), Fault> {
        let run = RunId::new(folders::name_of(folder));
        let found = folders::files_in(folder).map_err(disk_failed("read the backup directory"))?;
        let files = self.good(found).await;
        match self.drain_files(&run, folder, &files).await {
            // One file that the store refuses keeps no other of its run from it.
            Err(fault) if !fault.is_unavailable() && files.len() > 1 => {
                let mut drained = Err(fault);
                for file in &files {
                    match self
                        .drain_files(&run, folder, std::slice::from_ref(file))
                        .await
                    {
                        Ok(()) => {}
                        Err(fault) if fault.is_unavailable() => return Err(fault),
                        Err(fault) => drained = Err(fault),
                    }
                }
                drained
            }
            drained => drained,
        }
    }

    fn set_aside(&self) -> usize {
        self.set_aside.count()
    }

    async fn health_check(&self) -> Result<(), Fault> {
        self.store.health_check().await
    }
}
