//! The outbox on the embedded stores.

use super::{
    keys,
    records::StoredOutboxEntry,
    store::Embedded,
    txn::{Txn, decode},
};
use crate::{
    domain::{name::RunId, publish::PublishStatus, run::Run},
    ports::{
        Event, Fault, Outbox,
        outbox::{OutboxEntry, OutboxId},
    },
};
use async_trait::async_trait;
use std::ops::ControlFlow;

/// Adds an entry for the result of a run, or for a publish status that it got. Part of the command
/// that stores the run, so that neither is there without the other.
pub(super) fn add(
    txn: &mut Txn<'_>,
    run: &RunId,
    publish_status: Option<PublishStatus>,
) -> Result<(), Fault> {
    let id = txn.add(keys::meta("last_news"), 1)?;
    let entry = StoredOutboxEntry {
        run_id: run.clone(),
        publish_status,
    };
    txn.put(keys::outbox_entry(id), &entry)
}

fn pending(txn: &Txn<'_>, limit: usize) -> Result<Vec<OutboxEntry>, Fault> {
    let mut found = vec![];
    txn.scan(&keys::outbox_entries(), |key, value| -> Result<_, Fault> {
        if found.len() >= limit {
            return Ok(ControlFlow::Break(()));
        }
        let id = key
            .last_chunk::<8>()
            .map_or(0, |bytes| OutboxId::from_be_bytes(*bytes));
        let StoredOutboxEntry {
            run_id,
            publish_status,
        } = decode(value)?;
        if let Some(run) = txn.get::<Run>(&keys::run(&run_id))? {
            found.push(OutboxEntry {
                id,
                event: Event::of_run(run, publish_status),
            });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

#[async_trait]
impl Outbox for Embedded {
    #[tracing::instrument(
        name = "embedded.outbox.pending",
        level = "debug",
        skip_all,
        fields(limit)
    )]
    async fn pending(&self, limit: usize) -> Result<Vec<OutboxEntry>, Fault> {
        self.read_durable("list outbox entries", move |txn, _| pending(txn, limit))
            .await
    }

    #[tracing::instrument(
        name = "embedded.outbox.mark_published", level = "debug", skip_all,
        fields(entries = ids.len())
    )]
    async fn mark_published(&self, ids: &[OutboxId]) -> Result<(), Fault> {
        let ids = ids.to_vec();
        self.write("delete outbox entries", move |txn, _| {
            for id in ids {
                txn.delete(keys::outbox_entry(id));
            }
            Ok(())
        })
        .await
    }
}
