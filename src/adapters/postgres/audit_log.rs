//! The audit log, in `runner_audit`.

use super::{
    Postgres,
    records::{read, row_limit},
};
use crate::{
    domain::{
        audit::{AuditEntry, AuditId, AuditRecord},
        time::Time,
    },
    ports::{
        AuditLog, Fault,
        audit_log::{AuditPage, AuditQuery},
    },
};
use async_trait::async_trait;

/// How many entries one request looks at.
const MAX_SCANNED: i64 = 10_000;

#[async_trait]
impl AuditLog for Postgres {
    #[tracing::instrument(
        level = "debug", name = "postgres.audit_log.append", skip_all,
        fields(records = records.len())
    )]
    async fn append(&self, records: Vec<AuditRecord>) -> Result<AuditId, Fault> {
        let action = "append to the audit log";
        let records =
            serde_json::to_string(&records).map_err(|error| Fault::backend(action, error))?;
        let insert = sqlx::query_scalar(include_str!("sql/append_audit_records.sql")).bind(records);
        let appended = insert.fetch_one(self.tables.connections());
        self.tables.run(action, appended).await
    }

    #[tracing::instrument(level = "debug", name = "postgres.audit_log.entries", skip_all)]
    async fn entries(&self, query: AuditQuery) -> Result<AuditPage, Fault> {
        let filter = query.filter;
        // One more than is requested says whether there is a next page.
        let select = sqlx::query_as(include_str!("sql/list_audit_entries.sql"))
            .bind(query.before.unwrap_or(i64::MAX))
            .bind(MAX_SCANNED)
            .bind(filter.who)
            .bind(filter.action)
            .bind(filter.object)
            .bind(filter.since.map(|time| time.naive_utc()))
            .bind(filter.until.map(|time| time.naive_utc()))
            .bind(row_limit(query.limit.saturating_add(1)));
        let list = async {
            let rows: Vec<(Option<String>, Option<i64>)> =
                select.fetch_all(self.tables.connections()).await?;
            // Each row has the last entry that was looked at, when there are more.
            let scanned = rows.first().and_then(|(_, scanned)| *scanned);
            let entries: Vec<AuditEntry> = rows
                .iter()
                .filter_map(|(entry, _)| entry.as_deref().map(read))
                .collect::<sqlx::Result<_>>()?;
            Ok((entries, scanned))
        };
        let (mut entries, scanned) = self.tables.run("list audit entries", list).await?;
        let next = if entries.len() > query.limit {
            entries.truncate(query.limit);
            entries.last().map(|entry| entry.id)
        } else {
            scanned
        };
        Ok(AuditPage { entries, next })
    }

    #[tracing::instrument(level = "debug", name = "postgres.audit_log.trim", skip_all)]
    async fn trim(&self, earliest: Time, most: u64, batch_size: usize) -> Result<usize, Fault> {
        let delete = sqlx::query(include_str!("sql/trim_audit_entries.sql"))
            .bind(earliest.naive_utc())
            .bind(i64::try_from(most).unwrap_or(i64::MAX))
            .bind(row_limit(batch_size));
        let deleted = delete.execute(self.tables.connections());
        let done = self.tables.run("trim the audit log", deleted).await?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
    }
}
