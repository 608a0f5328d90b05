//! Artifacts and logs as objects in a bucket: how they are named, whatever the store. `adapters/gcs` and `adapters/s3`
//! bring the store.

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

/// A transfer that does not move for so long has failed.
const STALLED: Duration = Duration::from_secs(5);
/// How much is read from the disk at a time.
const CHUNK: usize = 256 << 10;

/// Why an object was not stored.
#[derive(Debug)]
pub enum PutError {
    /// The store does not let an object be overwritten.
    Refused,
    /// It failed.
    Failed(Fault),
}

/// A bucket.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Stores an object of `size` bytes, instead of what was there by that name.
    async fn put(&self, name: &str, content: &Content, size: u64) -> Result<(), PutError>;

    /// Opens an object; none when there is none.
    async fn get(&self, name: &str) -> Result<Option<FileReader>, Fault>;

    /// Whether the bucket can be used right now.
    async fn check(&self) -> Result<(), Fault>;
}

/// Bytes on their way.
pub type Chunks = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send + Sync>>;

/// Counts what moves.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<AtomicU64>);

impl Progress {
    /// The content, piece by piece; each piece is progress.
    pub async fn chunks(&self, content: &Content) -> io::Result<Chunks> {
        let moved = self.0.clone();
        let count = move |chunk: io::Result<Bytes>| {
            moved.fetch_add(1, Ordering::Relaxed);
            chunk
        };
        Ok(match content {
            Content::Memory(bytes) => {
                Box::pin(futures::stream::iter([Ok(bytes.clone())]).map(count))
            }
            Content::File(path) => Box::pin(
                ReaderStream::with_capacity(tokio::fs::File::open(path).await?, CHUNK).map(count),
            ),
        })
    }

    /// Notes that something moved.
    pub fn moved(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits for an object to be stored as long as it moves; false means that the store refused it.
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

    /// Waits for a transfer as long as it moves.
    pub async fn guard<T>(
        &self,
        action: &'static str,
        transfer: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let stalled = async {
            loop {
                let before = self.0.load(Ordering::Relaxed);
                sleep(STALLED).await;
                if self.0.load(Ordering::Relaxed) == before {
                    return;
                }
            }
        };
        tokio::select! {
            done = transfer => done,
            () = stalled => Err(Fault::unavailable(action, format!("nothing moved for {} s", STALLED.as_secs()))),
        }
    }
}
