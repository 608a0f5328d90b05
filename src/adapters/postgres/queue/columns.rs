//! Items as arrays, one for each column, so that one statement writes any number of them.

use crate::{
    adapters::postgres::records::queue_key,
    domain::queue::{QueueId, QueueItem, QueueKey},
};
use sqlx::PgConnection;
use std::collections::HashMap;

/// The columns of items, for `unnest`.
#[derive(Default)]
pub(super) struct ItemColumns {
    ids: Vec<i64>,
    buckets: Vec<&'static str>,
    codebases: Vec<String>,
    campaigns: Vec<String>,
    change_sets: Vec<Option<String>>,
    commands: Vec<String>,
    priorities: Vec<i64>,
    contexts: Vec<Option<String>>,
    durations: Vec<Option<f64>>,
    refresh: Vec<bool>,
    requesters: Vec<Option<String>>,
}

impl<'a> FromIterator<&'a QueueItem> for ItemColumns {
    fn from_iter<I: IntoIterator<Item = &'a QueueItem>>(items: I) -> Self {
        let mut columns = Self::default();
        for item in items {
            columns.ids.push(item.id);
            columns.buckets.push(item.bucket.as_str());
            columns.codebases.push(item.key.codebase.to_string());
            columns.campaigns.push(item.key.campaign.to_string());
            columns.change_sets.push(item.key.change_set.clone());
            columns.commands.push(item.command.clone());
            columns.priorities.push(item.priority);
            columns.contexts.push(item.context.clone());
            columns.durations.push(item.estimated_duration);
            columns.refresh.push(item.refresh);
            columns.requesters.push(item.requester.clone());
        }
        columns
    }
}

impl ItemColumns {
    /// Inserts the items, and returns the ids that they got, by key. There are fewer ids than
    /// items when other transactions inserted the same keys meanwhile.
    pub(super) async fn insert(
        self,
        connection: &mut PgConnection,
    ) -> sqlx::Result<HashMap<QueueKey, QueueId>> {
        if self.change_sets.iter().any(Option::is_some) {
            sqlx::query(include_str!("../sql/insert_change_sets.sql"))
                .bind(&self.change_sets)
                .bind(&self.campaigns)
                .execute(&mut *connection)
                .await?;
        }
        let rows: Vec<(i64, String, String, Option<String>)> =
            sqlx::query_as(include_str!("../sql/insert_items.sql"))
                .bind(self.buckets)
                .bind(self.codebases)
                .bind(self.campaigns)
                .bind(self.change_sets)
                .bind(self.commands)
                .bind(self.priorities)
                .bind(self.contexts)
                .bind(self.durations)
                .bind(self.refresh)
                .bind(self.requesters)
                .fetch_all(connection)
                .await?;
        rows.into_iter()
            .map(|(id, codebase, campaign, change_set)| {
                let key = queue_key(codebase, campaign, change_set);
                Ok((key.map_err(|e| sqlx::Error::Decode(e.into()))?, id))
            })
            .collect()
    }

    /// Updates the items, unless there are none.
    pub(super) async fn update(self, connection: &mut PgConnection) -> sqlx::Result<()> {
        if self.ids.is_empty() {
            return Ok(());
        }
        sqlx::query(include_str!("../sql/update_items.sql"))
            .bind(self.ids)
            .bind(self.buckets)
            .bind(self.commands)
            .bind(self.priorities)
            .bind(self.contexts)
            .bind(self.durations)
            .bind(self.refresh)
            .bind(self.requesters)
            .execute(connection)
            .await
            .map(drop)
    }
}
