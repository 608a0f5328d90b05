//! The queue on the embedded stores.

use super::{claiming, codebases, items, keys, memory_index::MemoryIndex, store::Embedded};
use crate::{
    domain::{
        name::{CampaignName, CodebaseName},
        queue::{QueueId, QueueItem},
        schedule::Pair,
        time::Time,
    },
    ports::{
        QueueStore, QueueStoreError,
        queue_store::{ClaimFilter, EnqueueBatch, Enqueued, NextItem, Position, QueueStats},
    },
};
use async_trait::async_trait;

fn position(index: &MemoryIndex, item: &QueueItem) -> Position {
    let first = Position {
        position: 1,
        wait_time: 0.0,
    };
    index
        .items_before(item.order())
        .fold(first, |so_far, item| Position {
            position: so_far.position + 1,
            wait_time: so_far.wait_time + item.estimated_duration.unwrap_or(0.0),
        })
}

fn waiting(
    index: &MemoryIndex,
    campaign: &CampaignName,
    codebase: Option<&CodebaseName>,
) -> Vec<QueueItem> {
    let matches = |item: &&QueueItem| {
        item.key.campaign == *campaign
            && codebase.is_none_or(|codebase| *codebase == item.key.codebase)
    };
    index.unclaimed_items().filter(matches).cloned().collect()
}

fn stats(index: &MemoryIndex) -> QueueStats {
    QueueStats {
        length: index.length() as u64,
        by_bucket: index
            .count_by_bucket()
            .iter()
            .filter(|(_, queued)| **queued > 0)
            .map(|(bucket, queued)| (*bucket, *queued))
            .collect(),
        by_campaign: index
            .count_by_campaign()
            .iter()
            .filter(|(_, queued)| **queued > 0)
            .map(|(name, queued)| (name.to_string(), *queued))
            .collect(),
        oldest: index.oldest(),
    }
}

#[async_trait]
impl QueueStore for Embedded {
    #[tracing::instrument(
        name = "embedded.queue_store.enqueue", level = "debug", skip_all,
        fields(items = batch.items.len())
    )]
    async fn enqueue(&self, batch: EnqueueBatch) -> Result<Vec<Enqueued>, QueueStoreError> {
        let enqueued: Vec<Enqueued> = self
            .write("queue items", move |txn, index| {
                for request in &batch.items {
                    if !codebases::exists(txn, &request.key.codebase)? {
                        let unknown = request.key.codebase.clone();
                        return Err(QueueStoreError::UnknownCodebase(unknown));
                    }
                }
                let follows_runs = !batch.settles.is_empty();
                for id in &batch.settles {
                    // Another process may have scheduled this follow-up; it must not happen twice.
                    if txn.get_bytes(&keys::follow_up(*id))?.is_none() {
                        return Err(QueueStoreError::AlreadySettled);
                    }
                    txn.delete(keys::follow_up(*id));
                }
                if follows_runs {
                    let (items, now) = (batch.items, batch.now);
                    return Ok(items::enqueue_follow_ups(txn, index, items, now)?);
                }
                let enqueued = batch
                    .items
                    .into_iter()
                    .map(|request| items::enqueue(txn, index, request, batch.now));
                Ok::<_, QueueStoreError>(enqueued.collect::<Result<_, _>>()?)
            })
            .await?;
        self.availability.add(enqueued.len());
        Ok(enqueued)
    }

    #[tracing::instrument(name = "embedded.queue_store.peek", level = "debug", skip_all)]
    async fn peek(
        &self,
        filter: &ClaimFilter,
        now: Time,
    ) -> Result<Option<NextItem>, QueueStoreError> {
        let filter = filter.clone();
        self.read("look for the next item", move |txn, index| {
            Ok(claiming::next(txn, index, &filter, now)?)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.queue_store.list",
        level = "debug",
        skip_all,
        fields(limit)
    )]
    async fn list(&self, limit: usize) -> Result<Vec<QueueItem>, QueueStoreError> {
        self.read_index(move |index| index.first_items(limit)).await
    }

    #[tracing::instrument(
        name = "embedded.queue_store.position", level = "debug", skip_all,
        fields(codebase.name = %pair.codebase, campaign.name = %pair.campaign)
    )]
    async fn position(&self, pair: &Pair) -> Result<Option<Position>, QueueStoreError> {
        let pair = pair.clone();
        self.read_index(move |index| {
            let first = index.first_item_of_pair(&pair);
            first.map(|item| position(index, item))
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.queue_store.position_of", level = "debug", skip_all, fields(queue.id = id)
    )]
    async fn position_of(&self, id: QueueId) -> Result<Option<Position>, QueueStoreError> {
        self.read_index(move |index| index.item(id).map(|stored| position(index, &stored.item)))
            .await
    }

    #[tracing::instrument(
        name = "embedded.queue_store.waiting", level = "debug", skip_all,
        fields(campaign.name = %campaign)
    )]
    async fn waiting(
        &self,
        campaign: &CampaignName,
        codebase: Option<CodebaseName>,
    ) -> Result<Vec<QueueItem>, QueueStoreError> {
        let campaign = campaign.clone();
        self.read_index(move |index| waiting(index, &campaign, codebase.as_ref()))
            .await
    }

    #[tracing::instrument(
        name = "embedded.queue_store.remove", level = "debug", skip_all, fields(items = ids.len())
    )]
    async fn remove(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, QueueStoreError> {
        let ids = ids.to_vec();
        self.write("remove items from the queue", move |txn, index| {
            let unclaimed: Vec<QueueId> = ids
                .into_iter()
                .filter(|id| !index.is_claimed(*id))
                .collect();
            Ok(unclaimed
                .into_iter()
                .filter_map(|id| items::remove(txn, index, id))
                .map(|stored| stored.item.id)
                .collect())
        })
        .await
    }

    #[tracing::instrument(name = "embedded.queue_store.stats", level = "debug", skip_all)]
    async fn stats(&self) -> Result<QueueStats, QueueStoreError> {
        self.read_index(stats).await
    }
}
