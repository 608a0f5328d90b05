//! Logs as objects: `PREFIX/CODEBASE/RUN_ID/NAME.gz`.

use super::{Objects, PutError};
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
use std::{fs::File, io, sync::Arc};
use tempfile::TempPath;
use tokio::io::AsyncReadExt;
use tokio_util::io::SyncIoBridge;

/// How many bytes of two logs are compared at a time.
const CHUNK_SIZE: usize = 64 << 10;

/// Logs in a bucket.
#[derive(Clone)]
pub struct ObjectLogs {
    objects: Arc<dyn Objects>,
    /// Put before each name; empty or with a final slash.
    prefix: &'static str,
}

/// A compressed log, and the temporary file that holds it, if any, as long as this lives.
struct Compressed {
    content: Content,
    size: u64,
    _file: Option<TempPath>,
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

/// Returns whether a stored object has that content.
async fn has_content(mut stored: FileReader, content: &Content) -> io::Result<bool> {
    let mut ours: FileReader = match content {
        Content::Memory(bytes) => Box::new(io::Cursor::new(bytes.clone())),
        Content::File(path) => Box::new(tokio::fs::File::from_std(File::open(path)?)),
    };
    let mut stored_chunk = vec![0; CHUNK_SIZE];
    let mut our_chunk = vec![0; CHUNK_SIZE];
    loop {
        let read = stored.read(&mut stored_chunk).await?;
        if read == 0 {
            return Ok(ours.read(&mut our_chunk).await? == 0);
        }
        let our_part = our_chunk.get_mut(..read).unwrap_or_default();
        match ours.read_exact(our_part).await {
            Ok(_) if Some(&*our_part) == stored_chunk.get(..read) => {}
            Ok(_) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
    }
}

impl ObjectLogs {
    /// Keeps logs in this bucket, below a prefix.
    pub fn new(objects: Arc<dyn Objects>, prefix: &'static str) -> Self {
        Self { objects, prefix }
    }

    fn name(&self, folder: &LogFolder, name: &str) -> String {
        format!("{}{}/{}/{name}", self.prefix, folder.codebase, folder.run)
    }

    /// Stores a log whose object exists and may not be overwritten: not at all when the content is
    /// the same, otherwise under a name with the time at which its run finished. So a late log
    /// replaces none, and is not lost either.
    async fn put_beside(
        &self,
        folder: &LogFolder,
        log: &SpooledFile,
        compressed: &Compressed,
        finished: Time,
    ) -> Result<(), Fault> {
        let action = "store a log";
        if let Some(stored) = self
            .objects
            .get(&self.name(folder, &format!("{}.gz", log.name)))
            .await?
            && has_content(stored, &compressed.content)
                .await
                .map_err(|e| Fault::unavailable(action, e))?
        {
            return Ok(());
        }
        let beside = format!("{}.{}.gz", log.name, finished.format("%Y%m%dT%H%M%S"));
        match self
            .objects
            .put(
                &self.name(folder, &beside),
                &compressed.content,
                compressed.size,
            )
            .await
        {
            Ok(()) => Ok(()),
            Err(PutError::Refused) => Err(Fault::backend(
                action,
                format!("neither {} nor {beside} can be written", log.name),
            )),
            Err(PutError::Failed(fault)) => Err(fault),
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
        match self
            .objects
            .put(
                &self.name(folder, &format!("{}.gz", log.name)),
                &compressed.content,
                compressed.size,
            )
            .await
        {
            Ok(()) => Ok(()),
            Err(PutError::Refused) => self.put_beside(folder, log, &compressed, finished).await,
            Err(PutError::Failed(fault)) => Err(fault),
        }
    }
}

#[async_trait]
impl LogStore for ObjectLogs {
    #[tracing::instrument(
        name = "objects.logs.store", level = "debug", skip_all,
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
        name = "objects.logs.open", level = "debug", skip_all, fields(run.id = %folder.run, name)
    )]
    async fn open(&self, folder: &LogFolder, name: &str) -> Result<Option<FileReader>, Fault> {
        if validate_file_name(name).is_err() {
            return Ok(None);
        }
        match self
            .objects
            .get(&self.name(folder, &format!("{name}.gz")))
            .await?
        {
            Some(reader) => Ok(Some(gzip::uncompressed(SyncIoBridge::new(reader)))),
            None => self.objects.get(&self.name(folder, name)).await,
        }
    }

    async fn health_check(&self) -> Result<(), Fault> {
        self.objects.health_check().await
    }
}
