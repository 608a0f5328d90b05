//! Artifacts as objects: `RUN_ID/NAME`.

use super::{
    Objects, PutError,
    look::{Look, look},
    write_state::WriteState,
};
use crate::{
    domain::{log_name::validate_file_name, name::RunId},
    ports::{ArtifactStore, Fault, SpooledFile, artifact_store::FileReader},
};
use async_trait::async_trait;
use futures::{StreamExt, TryStreamExt};
use std::sync::Arc;

/// How many files of one run are uploaded at the same time.
const MAX_CONCURRENT_UPLOADS: usize = 4;

/// Artifacts in a bucket.
#[derive(Clone)]
pub struct ObjectArtifacts {
    objects: Arc<dyn Objects>,
    writes: WriteState,
}

impl ObjectArtifacts {
    /// Keeps artifacts in this bucket.
    pub fn new(objects: Arc<dyn Objects>) -> Self {
        Self {
            objects,
            writes: WriteState::default(),
        }
    }

    async fn put(&self, run: &RunId, file: &SpooledFile) -> Result<(), Fault> {
        validate_file_name(&file.name).map_err(|e| Fault::backend("name an artifact", e))?;
        let name = format!("{run}/{}", file.name);
        let stored = match self.objects.put(&name, &file.content, file.size).await {
            // It may have been stored before, by a request whose response was lost.
            Err(PutError::Refused(fault)) => {
                match look(self.objects.as_ref(), &name, &file.content).await {
                    Look::Same => Ok(()),
                    Look::Other | Look::Unproven => Err(fault),
                }
            }
            stored => stored.map_err(Fault::from),
        };
        self.writes.note(stored.is_ok());
        stored
    }
}

#[async_trait]
impl ArtifactStore for ObjectArtifacts {
    #[tracing::instrument(
        name = "objects.artifact_store.store", level = "debug", skip_all,
        fields(run.id = %run, files = files.len())
    )]
    async fn store(&self, run: &RunId, files: &[SpooledFile]) -> Result<(), Fault> {
        validate_file_name(run.as_str()).map_err(|e| Fault::backend("name a run's folder", e))?;
        let puts: Vec<_> = files.iter().map(|file| self.put(run, file)).collect();
        futures::stream::iter(puts)
            .buffer_unordered(MAX_CONCURRENT_UPLOADS)
            .try_collect()
            .await
    }

    #[tracing::instrument(
        name = "objects.artifact_store.open", level = "debug", skip_all, fields(run.id = %run, name)
    )]
    async fn open(&self, run: &RunId, name: &str) -> Result<Option<FileReader>, Fault> {
        if validate_file_name(name).is_err() {
            return Ok(None);
        }
        self.objects.get(&format!("{run}/{name}")).await
    }

    async fn health_check(&self) -> Result<(), Fault> {
        self.writes.check(self.objects.as_ref(), "").await
    }
}
