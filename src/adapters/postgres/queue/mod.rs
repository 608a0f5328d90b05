//! The queue. Requests are merged by the domain's rule, in memory, on rows that are locked; then
//! all new items are inserted by one statement and all changed ones updated by another.

mod columns;
mod enqueue;
mod position;

pub(super) use enqueue::{EnqueueOutcome, enqueue, enqueue_pending};

use super::{
    Postgres, Tables,
    error::Abort,
    next_items::{self, Scan},
    records::{read, read_all, row_limit},
    scan_cursor::QUEUE_START,
};
use crate::{
    domain::{
        name::{CampaignName, CodebaseName},
        queue::{QueueId, QueueItem},
        schedule::Pair,
        time::Time,
    },
    ports::{
        Fault, QueueStore, QueueStoreError,
        queue_store::{
            ClaimFilter, EnqueueBatch, Enqueued, FollowUpId, NextItem, Position, QueueStats,
        },
    },
};
use async_trait::async_trait;
use sqlx::{PgConnection, Row};

/// Removes items unless they are held; part of a transaction.
pub(super) async fn remove(
    connection: &mut PgConnection,
    ids: Vec<QueueId>,
) -> sqlx::Result<Vec<QueueId>> {
    // Locked by a statement of its own, so that the next one sees the claims that were committed
    // while this one waited.
    sqlx::query("SELECT FROM queue WHERE id = ANY ($1) ORDER BY id FOR UPDATE")
        .bind(&ids)
        .execute(&mut *connection)
        .await?;
    sqlx::query_scalar(include_str!("../sql/remove_items.sql"))
        .bind(&ids)
        .fetch_all(connection)
        .await
}

/// Deletes the follow-ups that a batch settles; all of them must still be there.
async fn settle(
    connection: &mut PgConnection,
    ids: &[FollowUpId],
) -> Result<(), Abort<QueueStoreError>> {
    if ids.is_empty() {
        return Ok(());
    }
    let rows: Vec<i64> = ids.iter().map(|id| id.cast_signed()).collect();
    let settled = sqlx::query("DELETE FROM runner_follow_up WHERE id = ANY ($1)")
        .bind(rows)
        .execute(connection)
        .await?;
    if settled.rows_affected() < ids.len() as u64 {
        return Err(Abort::Refused(QueueStoreError::AlreadySettled));
    }
    Ok(())
}

impl Tables {
    /// Has those who wait look for the items of a transaction that was committed.
    pub(super) fn publish_enqueued(&self, outcome: EnqueueOutcome) -> Vec<Enqueued> {
        if let Some(first) = outcome.first {
            self.cursor.item_available(Some(first));
            self.notify_available(outcome.enqueued.len());
        }
        outcome.enqueued
    }

    async fn peek(&self, filter: &ClaimFilter, now: Time) -> Result<Option<NextItem>, Fault> {
        let scan = Scan {
            limit: 1,
            now,
            after: QUEUE_START,
            exclusive: true,
        };
        let peek = async {
            let query = next_items::peek(filter, scan);
            let Some(row) = query.fetch_optional(self.connections()).await? else {
                return Ok(None);
            };
            let (item, codebase): (String, String) =
                (row.try_get("item")?, row.try_get("codebase")?);
            Ok(Some(NextItem {
                item: read(&item)?,
                codebase: read(&codebase)?,
            }))
        };
        self.run("look for the next item", peek).await
    }
}

#[async_trait]
impl QueueStore for Postgres {
    #[tracing::instrument(
        level = "debug", name = "postgres.queue_store.enqueue", skip_all,
        fields(items = batch.items.len())
    )]
    async fn enqueue(&self, batch: EnqueueBatch) -> Result<Vec<Enqueued>, QueueStoreError> {
        let outcome = self.tables.transaction("queue items", |connection| {
            let batch = batch.clone();
            Box::pin(async move {
                if batch.settles.is_empty() {
                    return enqueue(connection, batch.items, batch.now).await;
                }
                settle(connection, &batch.settles).await?;
                enqueue::enqueue_follow_ups(connection, batch.items, batch.now).await
            })
        });
        Ok(self.tables.publish_enqueued(outcome.await?))
    }

    #[tracing::instrument(level = "debug", name = "postgres.queue_store.peek", skip_all)]
    async fn peek(
        &self,
        filter: &ClaimFilter,
        now: Time,
    ) -> Result<Option<NextItem>, QueueStoreError> {
        Ok(self.tables.peek(filter, now).await?)
    }

    #[tracing::instrument(
        level = "debug",
        name = "postgres.queue_store.list",
        skip_all,
        fields(limit)
    )]
    async fn list(&self, limit: usize) -> Result<Vec<QueueItem>, QueueStoreError> {
        let query = sqlx::query_scalar(include_str!("../sql/list_queue.sql"));
        let query = query.bind(row_limit(limit));
        Ok(self
            .tables
            .read("list the queue", |connection| {
                Box::pin(async move { read_all(query.fetch_all(connection).await?) })
            })
            .await?)
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.queue_store.position", skip_all,
        fields(codebase = %pair.codebase, campaign = %pair.campaign)
    )]
    async fn position(&self, pair: &Pair) -> Result<Option<Position>, QueueStoreError> {
        let pair = pair.clone();
        Ok(self
            .tables
            .read("look up a queue position", |connection| {
                Box::pin(async move {
                    let found = position::of_pair(connection, &pair).await?;
                    position::position(connection, found).await
                })
            })
            .await?)
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.queue_store.position_of", skip_all, fields(queue.id = id)
    )]
    async fn position_of(&self, id: QueueId) -> Result<Option<Position>, QueueStoreError> {
        Ok(self
            .tables
            .read("look up a queue position", |connection| {
                Box::pin(async move {
                    let found = position::of_item(connection, id).await?;
                    position::position(connection, found).await
                })
            })
            .await?)
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.queue_store.waiting", skip_all, fields(%campaign)
    )]
    async fn waiting(
        &self,
        campaign: &CampaignName,
        codebase: Option<CodebaseName>,
    ) -> Result<Vec<QueueItem>, QueueStoreError> {
        let query = sqlx::query_scalar(include_str!("../sql/list_waiting_items.sql"))
            .bind(campaign.to_string())
            .bind(codebase.map(String::from));
        Ok(self
            .tables
            .read("list waiting items", |connection| {
                Box::pin(async move { read_all(query.fetch_all(connection).await?) })
            })
            .await?)
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.queue_store.remove", skip_all, fields(items = ids.len())
    )]
    async fn remove(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, QueueStoreError> {
        self.tables
            .transaction("remove items from the queue", |connection| {
                let ids = ids.to_vec();
                Box::pin(async move { Ok(remove(connection, ids).await?) })
            })
            .await
    }

    #[tracing::instrument(level = "debug", name = "postgres.queue_store.stats", skip_all)]
    async fn stats(&self) -> Result<QueueStats, QueueStoreError> {
        let count = self.tables.read("count the queue", |connection| {
            Box::pin(position::stats(connection))
        });
        Ok(count.await?)
    }
}
