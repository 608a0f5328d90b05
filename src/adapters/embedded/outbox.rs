//! News on the embedded stores; and leases, which one process alone always has.

use super::{
    Embedded, keys,
    records::StoredOutboxEntry,
    txn::{Txn, decode},
};
use crate::{
    domain::run::Run,
    ports::{
        Event, Fault, LeaderElection, Outbox,
        outbox::{OutboxEntry, OutboxId},
    },
};
use async_trait::async_trait;
use std::{ops::ControlFlow, time::Duration};

fn pending(txn: &Txn<'_>, limit: usize) -> Result<Vec<OutboxEntry>, Fault> {
    let mut found = vec![];
    txn.scan(&keys::all_news(), |key, value| -> Result<_, Fault> {
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
    async fn pending(&self, limit: usize) -> Result<Vec<OutboxEntry>, Fault> {
        self.read("look for news", move |txn, _| pending(txn, limit))
            .await
    }

    async fn mark_published(&self, ids: &[OutboxId]) -> Result<(), Fault> {
        let ids = ids.to_vec();
        self.write("settle news", move |txn, _| {
            for id in ids {
                txn.delete(keys::news(id));
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl LeaderElection for Embedded {
    async fn acquire(&self, _: &str, _: &str, _: Duration) -> Result<bool, Fault> {
        Ok(true)
    }

    async fn resign(&self, _: &str, _: &str) -> Result<(), Fault> {
        Ok(())
    }
}
