//! Artifacts and logs as objects in a bucket: their names, and what to do when an object exists
//! already.
//!
//! `adapters/gcs` and `adapters/s3` bring the bucket ([`Objects`]). A further one implements that
//! trait, and bounds its transfers with [`Progress`].

mod artifacts;
mod logs;

pub use artifacts::ObjectArtifacts;
pub use logs::ObjectLogs;

use crate::ports::{
    Fault,
    artifact_store::{Content, FileReader},
};
use async_trait::async_trait;
use bytes::Bytes;
use futures::{Stream, StreamExt};
use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;
use tokio_util::io::ReaderStream;

/// How long a transfer may make no progress before it fails.
const STALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How many bytes are read from disk at a time.
const CHUNK_SIZE: usize = 256 << 10;

/// Why an object was not stored.
#[derive(Debug)]
pub enum PutError {
    /// The object exists, and the bucket does not allow to overwrite it.
    Refused,
    /// The bucket failed.
    Failed(Fault),
}

/// A bucket.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Stores an object of `size` bytes; replaces one of that name.
    ///
    /// # Errors
    ///
    /// Returns [`PutError::Refused`] when the bucket does not allow to overwrite the object, and
    /// [`PutError::Failed`] when it fails otherwise.
    async fn put(&self, name: &str, content: &Content, size: u64) -> Result<(), PutError>;

    /// Opens an object; returns `None` when there is none.
    ///
    /// # Errors
    ///
    /// Returns [`Fault`] when the bucket fails.
    async fn get(&self, name: &str) -> Result<Option<FileReader>, Fault>;

    /// Checks that the bucket can be used right now.
    ///
    /// # Errors
    ///
    /// Returns [`Fault`] when it cannot.
    async fn health_check(&self) -> Result<(), Fault>;
}

/// The content of an upload, chunk by chunk.
pub type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + Sync>>;

/// Counts the chunks of a transfer, so that a stalled one can be distinguished from a slow one.
///
/// A total timeout would fail large files on slow links; no timeout would keep requests waiting for
/// ever.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// Returns the content chunk by chunk; each chunk that is read counts as progress.
    ///
    /// # Errors
    ///
    /// Returns the error of the file system when the file cannot be opened.
    pub async fn chunks(&self, content: &Content) -> io::Result<Chunks> {
        let counter = self.0.clone();
        let count = move |chunk: io::Result<Bytes>| {
            counter.fetch_add(1, Ordering::Relaxed);
            chunk
        };
        Ok(match content {
            Content::Memory(bytes) => {
                Box::pin(futures::stream::iter([Ok(bytes.clone())]).map(count))
            }
            Content::File(path) => Box::pin(
                ReaderStream::with_capacity(tokio::fs::File::open(path).await?, CHUNK_SIZE)
                    .map(count),
            ),
        })
    }

    /// Counts progress that is not a chunk of the content.
    pub fn advance(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs an upload as long as it makes progress; one that returns false was refused by the
    /// bucket.
    ///
    /// # Errors
    ///
    /// Returns [`PutError::Refused`] when the bucket refused, and [`PutError::Failed`] when the
    /// upload fails or stalls.
    pub async fn guard_put(
        &self,
        action: &'static str,
        upload: impl Future<Output = Result<bool, Fault>>,
    ) -> Result<(), PutError> {
        match self.guard(action, upload).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(PutError::Refused),
            Err(fault) => Err(PutError::Failed(fault)),
        }
    }

    /// Runs a transfer as long as it makes progress.
    ///
    /// # Errors
    ///
    /// Returns the error of the transfer, or [`Fault::Unavailable`] when it stalls.
    pub async fn guard<T>(
        &self,
        action: &'static str,
        transfer: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let stalled = async {
            loop {
                let before = self.0.load(Ordering::Relaxed);
                sleep(STALL_TIMEOUT).await;
                if self.0.load(Ordering::Relaxed) == before {
                    return;
                }
            }
        };
        tokio::select! {
            done = transfer => done,
            () = stalled => {
                let seconds = STALL_TIMEOUT.as_secs();
                Err(Fault::unavailable(action, format!("nothing moved for {seconds} s")))
            }
        }
    }
}
