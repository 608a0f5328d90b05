//! Logs as objects: `PREFIX/CODEBASE/RUN_ID/NAME.gz`.

use super::{
    Objects, PutError,
    look::{Look, look},
    write_state::WriteState,
};
use crate::{
    adapters::{off_thread, support::gzip},
    domain::{log_name::validate_file_name, time::Time},
    ports::{
        Fault, LogStore, SpooledFile,
        artifact_store::{Content, FileReader},
        log_store::LogFolder,
    },
};
use async_trait::async_trait;
use std::{io, sync::Arc};
use tempfile::TempPath;

/// Logs in a bucket.
#[derive(Clone)]
pub struct ObjectLogs {
    objects: Arc<dyn Objects>,
    /// Put before each name; empty or with a final slash.
    prefix: &'static str,
    writes: WriteState,
}

/// A compressed log, and the temporary file that holds it, if any, as long as this lives.
struct Compressed {
    content: Content,
    size: u64,
    _file: Option<TempPath>,
}

/// Why an object with a log was not stored.
enum NotPut {
    /// The bucket keeps another log under that name, and refuses to overwrite it.
    OtherContent(Fault),
    /// The bucket failed, or refused and does not show why.
    Failed(Fault),
}

/// Compresses a log: in memory if it is there, into a file otherwise.
fn compress_log(content: &Content, finished: u32) -> io::Result<Compressed> {
    match content {
        Content::Memory(_) => {
            let mut bytes = vec![];
            gzip::compress(content, finished, &mut bytes)?;
            Ok(Compressed {
                size: bytes.len() as u64,
                content: Content::Memory(bytes.into()),
                _file: None,
            })
        }
        Content::File(path) => {
            let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(path))?;
            gzip::compress(content, finished, file.as_file_mut())?;
            let (size, path) = (file.as_file().metadata()?.len(), file.into_temp_path());
            Ok(Compressed {
                content: Content::File(path.to_path_buf()),
                size,
                _file: Some(path),
            })
        }
    }
}

impl ObjectLogs {
    /// Keeps logs in this bucket, below a prefix.
    pub fn new(objects: Arc<dyn Objects>, prefix: &'static str) -> Self {
        Self {
            objects,
            prefix,
            writes: WriteState::default(),
        }
    }

    fn name(&self, folder: &LogFolder, name: &str) -> String {
        format!("{}{}/{}/{name}", self.prefix, folder.codebase, folder.run)
    }

    /// Stores an object; one that is refused counts as stored when it is there already.
    async fn put_object(&self, name: &str, compressed: &Compressed) -> Result<(), NotPut> {
        match self
            .objects
            .put(name, &compressed.content, compressed.size)
            .await
        {
            Ok(()) => Ok(()),
            Err(PutError::Failed(fault)) => Err(NotPut::Failed(fault)),
            Err(PutError::Refused(fault)) => {
                match look(self.objects.as_ref(), name, &compressed.content).await {
                    Look::Same => Ok(()),
                    Look::Other => Err(NotPut::OtherContent(fault)),
                    Look::Unproven => Err(NotPut::Failed(fault)),
                }
            }
        }
    }

    async fn put(
        &self,
        folder: &LogFolder,
        log: &SpooledFile,
        finished: Time,
    ) -> Result<(), Fault> {
        validate_file_name(&log.name).map_err(|e| Fault::backend("name a log", e))?;
        let (content, seconds) = (
            log.content.clone(),
            u32::try_from(finished.timestamp()).unwrap_or(0),
        );
        let action = "compress a log";
        let compressed = off_thread(action, move || compress_log(&content, seconds))
            .await?
            .map_err(|e| Fault::unavailable(action, e))?;
        let name = self.name(folder, &format!("{}.gz", log.name));
        let stored = match self.put_object(&name, &compressed).await {
            // A late log replaces none, and is not lost either.
            Err(NotPut::OtherContent(_)) => {
                let beside = format!("{}.{}.gz", log.name, finished.format("%Y%m%dT%H%M%S"));
                let beside = self.name(folder, &beside);
                self.put_object(&beside, &compressed).await
            }
            stored => stored,
        };
        self.writes.note(stored.is_ok());
        stored.map_err(|error| match error {
            NotPut::OtherContent(fault) | NotPut::Failed(fault) => fault,
        })
    }
}

#[async_trait]
impl LogStore for ObjectLogs {
    #[tracing::instrument(
        name = "objects.log_store.store", level = "debug", skip_all,
        fields(run.id = %folder.run, files = files.len())
    )]
    async fn store(
        &self,
        folder: &LogFolder,
        files: &[SpooledFile],
        finished: Time,
    ) -> Result<(), Fault> {
        validate_file_name(folder.run.as_str())
            .map_err(|e| Fault::backend("name a run's folder", e))?;
        for log in files {
            self.put(folder, log, finished).await?;
        }
        Ok(())
    }

    #[tracing::instrument(
        name = "objects.log_store.open", level = "debug", skip_all, fields(run.id = %folder.run, name)
    )]
    async fn open(&self, folder: &LogFolder, name: &str) -> Result<Option<FileReader>, Fault> {
        if validate_file_name(name).is_err() {
            return Ok(None);
        }
        match self
            .objects
            .get(&self.name(folder, &format!("{name}.gz")))
            .await
        {
            Ok(Some(reader)) => Ok(Some(gzip::uncompressed(reader))),
            // A bucket that may not be listed refuses absent objects as it refuses others.
            Ok(None) | Err(Fault::Refused { .. }) => {
                self.objects.get(&self.name(folder, name)).await
            }
            Err(fault) => Err(fault),
        }
    }

    async fn health_check(&self) -> Result<(), Fault> {
        self.writes.check(self.objects.as_ref(), self.prefix).await
    }
}
