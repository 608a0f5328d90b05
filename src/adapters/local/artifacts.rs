//! Artifacts in a directory: `BASE/RUN_ID/NAME`.

use super::{
    absent_is_none, blocking, check_writable, partial_folder, sync_folder, write_atomically,
};
use crate::{
    domain::{log_name::validate_file_name, name::RunId},
    ports::{
        ArtifactStore, Fault, SpooledFile,
        artifact_store::{Content, FileReader},
    },
};
use async_trait::async_trait;
use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Artifacts in a directory.
#[derive(Debug, Clone)]
pub struct LocalArtifacts {
    base: PathBuf,
}

impl LocalArtifacts {
    /// Keeps artifacts below `base`, which is created when needed.
    pub fn new(base: PathBuf) -> Self {
        Self { base }
    }

    /// Returns whether there are artifacts of a run.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the file system fails.
    pub(in crate::adapters) async fn has_run(&self, run: &RunId) -> Result<bool, Fault> {
        let folder = self.folder(run)?;
        blocking("look for artifacts", move || folder.try_exists()).await
    }

    /// Returns the folder of a run. A run id that is not a plain file name could lead out of the
    /// base.
    fn folder(&self, run: &RunId) -> Result<PathBuf, Fault> {
        validate_file_name(run.as_str()).map_err(|e| Fault::backend("name a run's folder", e))?;
        Ok(self.base.join(run.as_str()))
    }
}

fn store_file(content: &Content, base: &Path, to: &Path) -> io::Result<()> {
    match content {
        Content::Memory(bytes) => write_atomically(base, to, |out| out.write_all(bytes)),
        Content::File(path) => link_in(path, base, to),
    }
}

/// Gives a spooled file its final name, beside the one that it has; copies it when that is on
/// another file system.
///
/// The file keeps its old name: when a later file of the run cannot be stored, all of them go to
/// the backup directory, and one that was moved would be lost.
fn link_in(from: &Path, base: &Path, to: &Path) -> io::Result<()> {
    // Before the rename: a crash could otherwise leave the name with an empty file.
    File::open(from)?.sync_data()?;
    let folder = partial_folder(base)?;
    match tempfile::Builder::new().make_in(folder, |path| fs::hard_link(from, path)) {
        Ok(link) => {
            let partial = link.path().to_owned();
            link.into_temp_path().persist(to)?;
            // A rename to another name of the same file does nothing, and both names stay.
            drop(fs::remove_file(partial));
            Ok(())
        }
        Err(_) => write_atomically(base, to, |out| {
            io::copy(&mut File::open(from)?, out).map(drop)
        }),
    }
}

#[async_trait]
impl ArtifactStore for LocalArtifacts {
    #[tracing::instrument(
        name = "local.artifact_store.store", level = "debug", skip_all,
        fields(run.id = %run, files = files.len())
    )]
    async fn store(&self, run: &RunId, files: &[SpooledFile]) -> Result<(), Fault> {
        let (base, folder, files) = (self.base.clone(), self.folder(run)?, files.to_vec());
        if files.is_empty() {
            return Ok(());
        }
        blocking("store artifacts", move || {
            fs::create_dir_all(&folder)?;
            for file in &files {
                let name = validate_file_name(&file.name).map_err(io::Error::other);
                name.and_then(|()| store_file(&file.content, &base, &folder.join(&file.name)))?;
            }
            // Artifacts must survive a crash once this returns: the names of the files, and that of
            // the folder.
            sync_folder(&folder)?;
            sync_folder(&base)
        })
        .await
    }

    #[tracing::instrument(
        name = "local.artifact_store.open", level = "debug", skip_all, fields(run.id = %run, name)
    )]
    async fn open(&self, run: &RunId, name: &str) -> Result<Option<FileReader>, Fault> {
        if validate_file_name(name).is_err() {
            return Ok(None);
        }
        let path = self.folder(run)?.join(name);
        let file = blocking("open an artifact", move || absent_is_none(File::open(path))).await?;
        Ok(file.map(|file| Box::new(tokio::fs::File::from_std(file)) as FileReader))
    }

    async fn health_check(&self) -> Result<(), Fault> {
        let base = self.base.clone();
        blocking("check the artifacts' folder", move || check_writable(&base)).await
    }
}
