//! The store of artifacts, which are the files that runs made.

use super::Fault;
use crate::domain::name::RunId;
use async_trait::async_trait;
use bytes::Bytes;
use std::path::PathBuf;
use tokio::io::AsyncRead;

/// A stored file, read from its start.
pub type FileReader = Box<dyn AsyncRead + Send + Unpin>;

/// The content of a file that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// In memory, because it is small.
    Memory(Bytes),
    /// On the local disk. The store leaves the file where it is.
    File(PathBuf),
}

/// An uploaded file that is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpooledFile {
    /// The name, never a path.
    pub name: String,
    /// The content.
    pub content: Content,
    /// The size, in bytes.
    pub size: u64,
}

/// Artifacts by run and name.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait ArtifactStore: Send + Sync {
    /// Stores the files of a run; they are durable when this returns. Storing them again is
    /// harmless.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn store(&self, run: &RunId, files: &[SpooledFile]) -> Result<(), Fault>;

    /// Opens a file; `None` when the run has no file of that name.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn open(&self, run: &RunId, name: &str) -> Result<Option<FileReader>, Fault>;

    /// Returns when the store can be used right now.
    ///
    /// # Errors
    ///
    /// [`Fault`] with the reason when it cannot.
    async fn health_check(&self) -> Result<(), Fault>;
}
