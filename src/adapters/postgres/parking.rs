//! Parked and snoozed items: those with a row in `runner_item` that says so.

use super::{
    Postgres,
    records::{read, row_limit},
};
use crate::{
    domain::{
        queue::{QueueId, QueueItem},
        retry::ItemState,
    },
    ports::{Fault, Parking, parking::QueueEntry},
};
use async_trait::async_trait;

/// An item and its state, both as JSON.
type EntryRow = (String, Option<String>);

fn entry((item, state): EntryRow) -> sqlx::Result<QueueEntry> {
    Ok(QueueEntry {
        item: read::<QueueItem>(&item)?,
        state: state
            .map(|state| read::<ItemState>(&state))
            .transpose()?
            .unwrap_or_default(),
    })
}

#[async_trait]
impl Parking for Postgres {
    #[tracing::instrument(
        level = "debug", name = "postgres.parking.entry", skip_all, fields(queue.id = id)
    )]
    async fn entry(&self, id: QueueId) -> Result<Option<QueueEntry>, Fault> {
        let query = sqlx::query_as(include_str!("sql/find_entry.sql")).bind(id);
        let find = async {
            let row: Option<EntryRow> = query.fetch_optional(self.tables.connections()).await?;
            row.map(entry).transpose()
        };
        self.tables.run("look up an item", find).await
    }

    #[tracing::instrument(level = "debug", name = "postgres.parking.parked", skip_all)]
    async fn parked(&self, after: Option<QueueId>, limit: usize) -> Result<Vec<QueueEntry>, Fault> {
        let query = sqlx::query_as(include_str!("sql/list_parked_items.sql"))
            .bind(after.unwrap_or(i64::MIN))
            .bind(row_limit(limit));
        let read = self.tables.read("list parked items", |connection| {
            Box::pin(async move {
                let rows: Vec<EntryRow> = query.fetch_all(connection).await?;
                rows.into_iter().map(entry).collect()
            })
        });
        read.await
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.parking.unpark", skip_all, fields(items = ids.len())
    )]
    async fn unpark(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, Fault> {
        let delete = sqlx::query_as(include_str!("sql/unpark_items.sql")).bind(ids);
        let deleted = delete.fetch_all(self.tables.connections());
        let rows: Vec<(QueueId, bool)> = self.tables.run("unpark items", deleted).await?;
        self.tables.cursor.item_available(None);
        self.tables.notify_available(rows.len());
        let mut unparked: Vec<QueueId> = rows
            .into_iter()
            .filter(|(_, was_held_back)| *was_held_back)
            .map(|(id, _)| id)
            .collect();
        unparked.sort_unstable_by_key(|id| ids.iter().position(|wanted| wanted == id));
        Ok(unparked)
    }
}
