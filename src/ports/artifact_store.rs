//! Files that runs made.

use super::Fault;
use crate::domain::name::RunId;
use async_trait::async_trait;
use bytes::Bytes;
use std::path::PathBuf;
use tokio::io::AsyncRead;

/// A stored file, read from its start.
pub type FileReader = Box<dyn AsyncRead + Send + Unpin>;

/// Where the content of a file waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Here: it is small.
    Memory(Bytes),
    /// On the local disk. The store may move it away.
    File(PathBuf),
}

/// A file of an upload, waiting to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct SpooledFile {
    /// A name, never a path.
    pub name: String,
    pub content: Content,
    /// Bytes.
    pub size: u64,
}

/// Artifacts by run and name.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait ArtifactStore: Send + Sync {
    /// Stores the files of a run; they are durable when this returns. Storing the same again is harmless.
    async fn store(&self, run: &RunId, files: &[SpooledFile]) -> Result<(), Fault>;

    /// Opens one; none when there is none.
    async fn open(&self, run: &RunId, name: &str) -> Result<Option<FileReader>, Fault>;

    /// Whether the store can be used right now.
    async fn health_check(&self) -> Result<(), Fault>;
}
