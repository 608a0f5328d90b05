//! Active runs on the embedded stores.

use super::{
    claiming, codebases, items, keys, memory_index::MemoryIndex, records::Moment, store::Embedded,
};
use crate::{
    domain::{
        active_run::{ActiveRun, Claimant},
        name::RunId,
        time::Time,
    },
    ports::{
        ActiveRunStore, ActiveRunStoreError,
        active_runs::{ActiveRunUpdate, ClaimRequest, Claimed, Renewal},
    },
};
use async_trait::async_trait;

/// Returns the active run, if the token is that of its claim.
fn claimed(index: &MemoryIndex, id: &RunId, token: &str) -> Result<ActiveRun, ActiveRunStoreError> {
    index
        .claimed_run(id, token)
        .cloned()
        .ok_or_else(|| ActiveRunStoreError::ClaimLost(id.clone()))
}

#[async_trait]
impl ActiveRunStore for Embedded {
    #[tracing::instrument(
        name = "embedded.active_runs.claim", level = "debug", skip_all,
        fields(run.id = %request.run_id)
    )]
    async fn claim(&self, request: ClaimRequest) -> Result<Option<Claimed>, ActiveRunStoreError> {
        self.write("claim an item", move |txn, index| {
            Ok::<_, ActiveRunStoreError>(claiming::claim(txn, index, request)?)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.active_runs.get", level = "debug", skip_all, fields(run.id = %id)
    )]
    async fn get(&self, id: &RunId) -> Result<Option<ActiveRun>, ActiveRunStoreError> {
        let id = id.clone();
        self.read_index(move |index| index.active_run(&id).cloned())
            .await
    }

    #[tracing::instrument(name = "embedded.active_runs.list", level = "debug", skip_all)]
    async fn list(&self) -> Result<Vec<ActiveRun>, ActiveRunStoreError> {
        self.read_index(MemoryIndex::active_runs).await
    }

    #[tracing::instrument(name = "embedded.active_runs.held_by", level = "debug", skip_all)]
    async fn held_by(&self, claimant: &Claimant) -> Result<Vec<ActiveRun>, ActiveRunStoreError> {
        let claimant = claimant.clone();
        self.read_index(move |index| index.held_by(&claimant)).await
    }

    #[tracing::instrument(name = "embedded.active_runs.count_held_by", level = "debug", skip_all)]
    async fn count_held_by(&self, worker: &str) -> Result<u64, ActiveRunStoreError> {
        let worker = worker.to_owned();
        self.read_index(move |index| index.count_held_by(&worker))
            .await
    }

    #[tracing::instrument(
        name = "embedded.active_runs.update", level = "debug", skip_all, fields(run.id = %id)
    )]
    async fn update(
        &self,
        id: &RunId,
        token: &str,
        update: ActiveRunUpdate,
    ) -> Result<(), ActiveRunStoreError> {
        let (id, token) = (id.clone(), token.to_owned());
        self.write("update an active run", move |txn, index| {
            let run = claimed(index, &id, &token)?;
            let run = match update {
                ActiveRunUpdate::Probed { vcs, resume_from } => {
                    codebases::learn_vcs_type(txn, &run.key().codebase, vcs.vcs_type)?;
                    ActiveRun {
                        vcs,
                        resume_from,
                        ..run
                    }
                }
                ActiveRunUpdate::Pinged { failures } => ActiveRun { failures, ..run },
                ActiveRunUpdate::Responded => {
                    let mut run = run;
                    run.claimant.has_responded = true;
                    run
                }
            };
            claiming::persist(txn, index, run)?;
            Ok(())
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.active_runs.renew", level = "debug", skip_all, fields(run.id = %id)
    )]
    async fn renew(
        &self,
        id: &RunId,
        token: &str,
        renewal: Renewal,
    ) -> Result<ActiveRun, ActiveRunStoreError> {
        let (id, token) = (id.clone(), token.to_owned());
        self.write("renew a claim", move |txn, index| {
            let mut run = claimed(index, &id, &token)?;
            run.renew(renewal.now, renewal.lease);
            if let Some(worker) = &run.claimant.worker {
                txn.put(keys::worker_seen(worker), &Moment(run.keepalive))?;
            }
            Ok(claiming::persist(txn, index, run)?)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.active_runs.cancel", level = "debug", skip_all, fields(run.id = %id)
    )]
    async fn cancel(
        &self,
        id: &RunId,
        reason: &str,
    ) -> Result<Option<ActiveRun>, ActiveRunStoreError> {
        let (id, reason) = (id.clone(), reason.to_owned());
        self.write("cancel a claim", move |txn, index| {
            let Some(mut run) = index.active_run(&id).cloned() else {
                return Ok(None);
            };
            run.cancel.get_or_insert(reason);
            Ok(Some(claiming::persist(txn, index, run)?))
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.active_runs.release", level = "debug", skip_all, fields(run.id = %id)
    )]
    async fn release(&self, id: &RunId, token: &str, now: Time) -> Result<(), ActiveRunStoreError> {
        let (id, token) = (id.clone(), token.to_owned());
        self.write("release a claim", move |txn, index| {
            let run = claimed(index, &id, &token)?;
            // Before the deferred request is applied: a claimed item would defer it again.
            txn.delete(keys::active(&id));
            index.set_active_run(&id, None);
            items::apply_pending_enqueue(txn, index, run.item.id, now)?;
            Ok::<_, ActiveRunStoreError>(())
        })
        .await?;
        self.availability.add(1);
        Ok(())
    }

    #[tracing::instrument(
        name = "embedded.active_runs.adopt", level = "debug", skip_all, fields(run.id = %run.id)
    )]
    async fn adopt(&self, run: ActiveRun) -> Result<bool, ActiveRunStoreError> {
        self.write("adopt a claim", move |txn, index| {
            let is_finished = txn.get_bytes(&keys::run(&run.id))?.is_some();
            let is_claimed = index.is_claimed(run.item.id);
            if is_finished || is_claimed || index.active_run(&run.id).is_some() {
                return Ok(false);
            }
            claiming::persist(txn, index, run)?;
            Ok(true)
        })
        .await
    }
}
