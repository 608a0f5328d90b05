//! Parked and snoozed items on the embedded stores.

use super::{items, memory_index::MemoryIndex, records::StoredItem, store::Embedded, txn::Txn};
use crate::{
    domain::{queue::QueueId, retry::ItemState},
    ports::{Fault, Parking, parking::QueueEntry},
};
use async_trait::async_trait;

fn entry(StoredItem { item, state, .. }: StoredItem) -> QueueEntry {
    QueueEntry { item, state }
}

/// Resets the states of unclaimed items; returns those that were parked or snoozed.
fn unpark(
    txn: &mut Txn<'_>,
    index: &mut MemoryIndex,
    ids: Vec<QueueId>,
) -> Result<Vec<QueueId>, Fault> {
    let mut unparked = vec![];
    for id in ids {
        let Some(stored) = index
            .item(id)
            .filter(|stored| !index.is_claimed(id) && stored.state != ItemState::default())
        else {
            continue;
        };
        let was_held_back = stored.state.parked.is_some() || stored.state.not_before.is_some();
        let stored = StoredItem {
            state: ItemState::default(),
            ..stored.clone()
        };
        items::persist(txn, index, stored)?;
        unparked.extend(was_held_back.then_some(id));
    }
    Ok(unparked)
}

#[async_trait]
impl Parking for Embedded {
    #[tracing::instrument(
        name = "embedded.parking.entry", level = "debug", skip_all, fields(queue.id = id)
    )]
    async fn entry(&self, id: QueueId) -> Result<Option<QueueEntry>, Fault> {
        self.read_index(move |index| index.item(id).cloned().map(entry))
            .await
    }

    #[tracing::instrument(
        name = "embedded.parking.parked",
        level = "debug",
        skip_all,
        fields(limit)
    )]
    async fn parked(&self, after: Option<QueueId>, limit: usize) -> Result<Vec<QueueEntry>, Fault> {
        self.read_index(move |index| {
            let parked = index.parked(after, limit);
            parked.into_iter().map(entry).collect()
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.parking.unpark", level = "debug", skip_all, fields(items = ids.len())
    )]
    async fn unpark(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, Fault> {
        let ids = ids.to_vec();
        let unparked = self.write("unpark items", move |txn, index| unpark(txn, index, ids));
        let unparked: Vec<QueueId> = unparked.await?;
        self.availability.add(unparked.len());
        Ok(unparked)
    }
}
