//! Looks whether an object is there already, with the same content.

use super::{Objects, attempt::chunks};
use crate::ports::artifact_store::{Content, FileReader};
use futures::StreamExt;
use std::io;
use tokio::io::AsyncReadExt;

/// What a look at an object shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// The object has this content.
    Same,
    /// The object has other content.
    Other,
    /// There is no object, or it cannot be read.
    Unproven,
}

/// Returns whether a stored object has that content.
async fn has_content(mut stored: FileReader, content: &Content) -> io::Result<bool> {
    let mut ours = chunks(content).await?;
    let mut theirs = vec![];
    while let Some(chunk) = ours.next().await {
        let chunk = chunk?;
        theirs.resize(chunk.len(), 0);
        match stored.read_exact(&mut theirs).await {
            Ok(_) if theirs == chunk => {}
            Ok(_) => return Ok(false),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    Ok(stored.read(&mut [0]).await? == 0)
}

/// Compares an object with content. The whole object is read while it is the same: this happens
/// only after a refused write, and a checksum of the bucket would be in another form for each kind
/// of bucket and upload.
pub(super) async fn look(objects: &dyn Objects, name: &str, content: &Content) -> Look {
    let stored = match objects.get(name).await {
        Ok(Some(stored)) => stored,
        Ok(None) => return Look::Unproven,
        Err(error) => {
            tracing::debug!(
                name,
                error = &error as &dyn std::error::Error,
                "an object cannot be looked at"
            );
            return Look::Unproven;
        }
    };
    match has_content(stored, content).await {
        Ok(true) => Look::Same,
        Ok(false) => Look::Other,
        Err(error) => {
            tracing::debug!(name, %error, "an object cannot be read");
            Look::Unproven
        }
    }
}
