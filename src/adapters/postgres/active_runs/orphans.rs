//! Claims that may be in the database though no caller knows of them.

use crate::{adapters::postgres::Tables, domain::name::RunId, ports::ActiveRunStoreError};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Claims by statements whose reply was lost, with their tokens. Unless they are released, no
/// worker would ever work on their items.
#[derive(Debug, Default)]
pub(in crate::adapters::postgres) struct Orphans(Mutex<Vec<(RunId, String)>>);

impl Orphans {
    fn claims(&self) -> MutexGuard<'_, Vec<(RunId, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers claims to release.
    pub(super) fn add(&self, claims: impl IntoIterator<Item = (RunId, String)>) {
        self.claims().extend(claims);
    }

    fn take(&self) -> Vec<(RunId, String)> {
        std::mem::take(&mut self.claims())
    }
}

impl Tables {
    /// Releases the claims of statements whose reply was lost, once those statements have ended:
    /// one that is still running could claim its item after the release.
    pub(super) async fn release_orphans(&self) {
        if !self.pool.is_settled() {
            return;
        }
        for (id, token) in self.orphans.take() {
            match self.release(&id, &token, None).await {
                Ok(()) | Err(ActiveRunStoreError::ClaimLost(_)) => {}
                Err(ActiveRunStoreError::Fault(_)) => self.orphans.add([(id, token)]),
            }
        }
    }
}
