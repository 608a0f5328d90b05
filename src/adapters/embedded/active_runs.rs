//! Claims and limited hosts on the embedded stores.

use super::{Embedded, keys, memory_index::MemoryIndex, queue, records::Moment, txn::Txn};
use crate::{
    domain::{active_run::ActiveRun, name::RunId, time::Time},
    ports::{
        ActiveRunStore, ActiveRunStoreError, Fault, HostBackoffs,
        active_runs::{ActiveRunUpdate, ClaimRequest, Claimed, Renewal},
        host_backoff::HostBackoff,
    },
};
use async_trait::async_trait;

fn held(hot: &MemoryIndex, id: &RunId, token: &str) -> Result<ActiveRun, ActiveRunStoreError> {
    hot.holder(id, token)
        .cloned()
        .ok_or_else(|| ActiveRunStoreError::ClaimLost(id.clone()))
}

/// Stores a claim as it is now.
pub(super) fn keep(
    txn: &mut Txn<'_>,
    hot: &mut MemoryIndex,
    run: ActiveRun,
) -> Result<ActiveRun, Fault> {
    txn.put(keys::active(&run.id), &run)?;
    hot.set_claim(&run.id, Some(run.clone()));
    Ok(run)
}

#[async_trait]
impl ActiveRunStore for Embedded {
    async fn claim(&self, request: ClaimRequest) -> Result<Option<Claimed>, ActiveRunStoreError> {
        self.write("claim an item", move |txn, hot| {
            Ok::<_, ActiveRunStoreError>(queue::claim(txn, hot, request)?)
        })
        .await
    }

    async fn update(
        &self,
        id: &RunId,
        token: &str,
        update: ActiveRunUpdate,
    ) -> Result<(), ActiveRunStoreError> {
        let (id, token) = (id.clone(), token.to_owned());
        self.write("update an active run", move |txn, hot| {
            let run = held(hot, &id, &token)?;
            let run = match update {
                ActiveRunUpdate::Probed { vcs, resume_from } => ActiveRun {
                    vcs,
                    resume_from,
                    ..run
                },
                ActiveRunUpdate::Pinged { failures } => ActiveRun { failures, ..run },
            };
            keep(txn, hot, run)?;
            Ok(())
        })
        .await
    }

    async fn get(&self, id: &RunId) -> Result<Option<ActiveRun>, ActiveRunStoreError> {
        let id = id.clone();
        self.look(move |hot| hot.claim(&id).cloned()).await
    }

    async fn list(&self) -> Result<Vec<ActiveRun>, ActiveRunStoreError> {
        self.look(MemoryIndex::claims).await
    }

    async fn renew(
        &self,
        id: &RunId,
        token: &str,
        renewal: Renewal,
    ) -> Result<ActiveRun, ActiveRunStoreError> {
        let (id, token) = (id.clone(), token.to_owned());
        self.write("renew a claim", move |txn, hot| {
            let mut run = held(hot, &id, &token)?;
            run.renew(renewal.now, renewal.lease);
            if let Some(worker) = &run.claimant.worker {
                txn.put(keys::worker_seen(worker), &Moment(run.keepalive))?;
            }
            Ok(keep(txn, hot, run)?)
        })
        .await
    }

    async fn cancel(
        &self,
        id: &RunId,
        reason: &str,
    ) -> Result<Option<ActiveRun>, ActiveRunStoreError> {
        let (id, reason) = (id.clone(), reason.to_owned());
        self.write("cancel a claim", move |txn, hot| {
            let Some(mut run) = hot.claim(&id).cloned() else {
                return Ok(None);
            };
            run.cancel.get_or_insert(reason);
            Ok(Some(keep(txn, hot, run)?))
        })
        .await
    }

    async fn release(&self, id: &RunId, token: &str, now: Time) -> Result<(), ActiveRunStoreError> {
        let (id, token) = (id.clone(), token.to_owned());
        self.write("release a claim", move |txn, hot| {
            let run = held(hot, &id, &token)?;
            txn.delete(keys::active(&id));
            hot.set_claim(&id, None);
            Ok::<_, ActiveRunStoreError>(queue::free_item(txn, hot, run.item.id, now)?)
        })
        .await?;
        self.availability.add(1);
        Ok(())
    }

    async fn adopt(&self, run: ActiveRun) -> Result<bool, ActiveRunStoreError> {
        self.write("take over a claim", move |txn, hot| {
            let stored = txn.get_bytes(&keys::run(&run.id))?.is_some();
            if stored || hot.claim(&run.id).is_some() || hot.is_held(run.item.id) {
                return Ok(false);
            }
            keep(txn, hot, run)?;
            Ok(true)
        })
        .await
    }
}

#[async_trait]
impl HostBackoffs for Embedded {
    async fn back_off_host(&self, limit: HostBackoff) -> Result<(), Fault> {
        self.write("limit a host", move |txn, hot| {
            let until = hot
                .host(&limit.host)
                .map_or(limit.until, |earlier| earlier.max(limit.until));
            txn.put(keys::host(&limit.host), &Moment(until))?;
            hot.set_host(limit.host, until);
            Ok(())
        })
        .await
    }

    async fn backed_off_hosts(&self, now: Time) -> Result<Vec<HostBackoff>, Fault> {
        self.look(move |hot| hot.backed_off_hosts(now)).await
    }
}
