//! Claims that may be in the database though no caller knows of them.

use crate::{
    adapters::postgres::Tables,
    domain::{name::RunId, time::Time},
    ports::ActiveRunStoreError,
};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A claim whose caller got no reply.
#[derive(Debug)]
pub(super) struct Orphan {
    /// The run that the item was claimed for.
    pub(super) id: RunId,
    /// The token of the claim.
    pub(super) token: String,
    /// The time of the claim.
    pub(super) claimed: Time,
}

/// Claims by statements whose reply was lost. Unless they are released, no worker would ever work
/// on their items.
#[derive(Debug, Default)]
pub(in crate::adapters::postgres) struct Orphans(Mutex<Vec<Orphan>>);

impl Orphans {
    fn claims(&self) -> MutexGuard<'_, Vec<Orphan>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers claims to release.
    pub(super) fn add(&self, claims: impl IntoIterator<Item = Orphan>) {
        self.claims().extend(claims);
    }

    fn take(&self) -> Vec<Orphan> {
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
        for orphan in self.orphans.take() {
            // What was queued for the item while the orphan held it is queued now.
            let released = self.release(&orphan.id, &orphan.token, orphan.claimed);
            match released.await {
                Ok(()) | Err(ActiveRunStoreError::ClaimLost(_)) => {}
                Err(ActiveRunStoreError::Fault(_)) => self.orphans.add([orphan]),
            }
        }
    }
}
