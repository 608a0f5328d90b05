//! Artifacts and logs as objects in a bucket: their names, and what to do when an object exists
//! already.
//!
//! `adapters/gcs` and `adapters/s3` bring the bucket ([`Objects`]). A further one implements that
//! trait, and sends its requests through [`attempt`], which bounds and repeats them.

mod artifacts;
pub mod attempt;
mod logs;
mod look;
mod write_state;

pub use artifacts::ObjectArtifacts;
pub use logs::ObjectLogs;

use crate::ports::{
    Fault,
    artifact_store::{Content, FileReader},
};
use async_trait::async_trait;

/// Why an object was not stored.
#[derive(Debug)]
pub enum PutError {
    /// The bucket refused, perhaps because the object exists and may not be overwritten. Whether
    /// the object has this content is proven only by looking at it.
    Refused(Fault),
    /// The bucket failed.
    Failed(Fault),
}

impl From<PutError> for Fault {
    fn from(error: PutError) -> Self {
        match error {
            PutError::Refused(fault) | PutError::Failed(fault) => fault,
        }
    }
}

impl From<attempt::Failure> for PutError {
    fn from(failure: attempt::Failure) -> Self {
        match failure.status {
            Some(401 | 403 | 412) => Self::Refused(failure.fault),
            _ => Self::Failed(failure.fault),
        }
    }
}

/// A bucket.
#[async_trait]
pub trait Objects: Send + Sync {
    /// Stores an object of `size` bytes; replaces one of that name.
    ///
    /// # Errors
    ///
    /// Returns [`PutError::Refused`] when the bucket refuses, for whatever reason, and
    /// [`PutError::Failed`] when it fails otherwise.
    async fn put(&self, name: &str, content: &Content, size: u64) -> Result<(), PutError>;

    /// Opens an object; returns `None` when there is none.
    ///
    /// # Errors
    ///
    /// Returns [`Fault::Refused`] when the bucket refuses, which it also does for absent objects
    /// when it may not be listed, and another [`Fault`] when it fails.
    async fn get(&self, name: &str) -> Result<Option<FileReader>, Fault>;

    /// Checks that the bucket can be used right now.
    ///
    /// # Errors
    ///
    /// Returns [`Fault::Refused`] when it may not be listed, and another [`Fault`] when it cannot
    /// be used.
    async fn health_check(&self) -> Result<(), Fault>;
}
