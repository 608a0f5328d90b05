//! Events that are to be published, in `runner_outbox`.

use super::{Postgres, error, records::row_limit, runs::rows};
use crate::ports::{
    Event, Fault, Outbox,
    outbox::{OutboxEntry, OutboxId},
};
use async_trait::async_trait;

const LIST: &str = "list outbox entries";

/// Id, publish status and run of an entry. Without a publish status it is the run's result.
type EntryRow = (i64, Option<String>, String);

fn entry((id, status, run): EntryRow) -> Result<OutboxEntry, Fault> {
    let run = rows::run(&run).map_err(|e| error::fault(LIST, e))?;
    let status = status
        .map(|status| status.parse())
        .transpose()
        .map_err(|e| Fault::backend(LIST, e))?;
    Ok(OutboxEntry {
        id: id.cast_unsigned(),
        event: Event::of_run(run, status),
    })
}

#[async_trait]
impl Outbox for Postgres {
    #[tracing::instrument(level = "debug", name = "postgres.outbox.pending", skip_all)]
    async fn pending(&self, limit: usize) -> Result<Vec<OutboxEntry>, Fault> {
        let query = sqlx::query_as(include_str!("sql/list_outbox_entries.sql"));
        let query = query.bind(row_limit(limit));
        let rows: Vec<EntryRow> = self
            .tables
            .run(LIST, query.fetch_all(self.tables.connections()))
            .await?;
        rows.into_iter().map(entry).collect()
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.outbox.mark_published", skip_all,
        fields(entries = ids.len())
    )]
    async fn mark_published(&self, ids: &[OutboxId]) -> Result<(), Fault> {
        let ids: Vec<i64> = ids.iter().map(|id| id.cast_signed()).collect();
        let delete = sqlx::query("DELETE FROM runner_outbox WHERE id = ANY ($1)").bind(ids);
        let deleted = delete.execute(self.tables.connections());
        self.tables
            .run("delete outbox entries", deleted)
            .await
            .map(drop)
    }
}
