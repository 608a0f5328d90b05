//! Whether writes to a bucket work, for health checks.

use super::{
    Objects, PutError,
    look::{Look, look},
};
use crate::ports::{Fault, artifact_store::Content};
use bytes::Bytes;
use std::{
    hash::{BuildHasher, Hasher, RandomState},
    sync::{Arc, Mutex, PoisonError},
};

/// The object that health checks write when it is not known whether writes work.
const PROBE: &str = "checked/by/janitor-runner";
const PROBE_CONTENT: &[u8] = b"janitor-runner wrote this to see whether it may write\n";

/// Returns a number that makes a name that is not used yet. It is no secret.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// How the last write went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Last {
    /// There was none.
    Unknown,
    Worked,
    Failed,
}

/// How the last write to a bucket went.
///
/// A bucket that can be listed may refuse every write, and one that takes them may not let itself
/// be listed.
#[derive(Debug, Clone)]
pub(super) struct WriteState(Arc<Mutex<Last>>);

impl Default for WriteState {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Last::Unknown)))
    }
}

impl WriteState {
    fn last(&self) -> Last {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes how a write went.
    pub(super) fn note(&self, worked: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) =
            if worked { Last::Worked } else { Last::Failed };
    }

    /// Checks that the bucket can be used. After a failed write it is used again when a write
    /// works: no run may come that would try one, since this runner is not ready.
    ///
    /// # Errors
    ///
    /// Returns the [`Fault`] of the bucket.
    pub(super) async fn check(&self, objects: &dyn Objects, prefix: &str) -> Result<(), Fault> {
        match (objects.health_check().await, self.last()) {
            (Ok(()), Last::Unknown | Last::Worked) | (Err(Fault::Refused { .. }), Last::Worked) => {
                Ok(())
            }
            (Ok(()), Last::Failed) | (Err(Fault::Refused { .. }), _) => {
                self.probe(objects, prefix).await
            }
            (Err(fault), _) => Err(fault),
        }
    }

    async fn probe(&self, objects: &dyn Objects, prefix: &str) -> Result<(), Fault> {
        let name = format!("{prefix}{PROBE}");
        let content = Content::Memory(Bytes::from_static(PROBE_CONTENT));
        let put = async |name: &str| {
            let size = PROBE_CONTENT.len() as u64;
            objects.put(name, &content, size).await
        };
        let put = match put(&name).await {
            // It was written after an earlier failure, and the bucket lets nothing be overwritten,
            // or takes no writes now: only a new object shows which.
            Err(PutError::Refused(_)) if look(objects, &name, &content).await == Look::Same => {
                put(&format!("{name}-{:016x}", random())).await
            }
            put => put,
        };
        self.note(put.is_ok());
        put.map_err(Fault::from)
    }
}
