//! Hosts that asked to be left alone, in `runner_host_backoff`.

use super::Postgres;
use crate::{
    domain::time::Time,
    ports::{Fault, HostBackoffs, host_backoff::HostBackoff},
};
use async_trait::async_trait;
use chrono::NaiveDateTime;

#[async_trait]
impl HostBackoffs for Postgres {
    #[tracing::instrument(
        level = "debug", name = "postgres.host_backoff.back_off_host", skip_all,
        fields(host = %backoff.host)
    )]
    async fn back_off_host(&self, backoff: HostBackoff) -> Result<(), Fault> {
        let write = sqlx::query(include_str!("sql/back_off_host.sql"))
            .bind(backoff.host)
            .bind(backoff.until.naive_utc());
        let written = write.execute(self.tables.connections());
        self.tables.run("back off a host", written).await?;
        // By itself: in one statement with the above, two runners could wait for each other.
        let delete = sqlx::query(include_str!("sql/remove_ended_backoffs.sql"))
            .bind(backoff.until.naive_utc());
        let deleted = delete.execute(self.tables.connections());
        self.tables.run("remove ended backoffs", deleted).await?;
        Ok(())
    }

    #[tracing::instrument(
        level = "debug",
        name = "postgres.host_backoff.end_backoff",
        skip_all,
        fields(host)
    )]
    async fn end_backoff(&self, host: &str) -> Result<bool, Fault> {
        let delete = sqlx::query("DELETE FROM runner_host_backoff WHERE host = $1").bind(host);
        let deleted = delete.execute(self.tables.connections());
        let deleted = self
            .tables
            .run("end the backoff of a host", deleted)
            .await?;
        Ok(deleted.rows_affected() > 0)
    }

    #[tracing::instrument(
        level = "debug",
        name = "postgres.host_backoff.backed_off_hosts",
        skip_all
    )]
    async fn backed_off_hosts(&self, now: Time) -> Result<Vec<HostBackoff>, Fault> {
        let query = sqlx::query_as(
            "SELECT host, until FROM runner_host_backoff WHERE until > $1 ORDER BY host",
        )
        .bind(now.naive_utc());
        let rows = query.fetch_all(self.tables.connections());
        let rows: Vec<(String, NaiveDateTime)> =
            self.tables.run("list hosts that back off", rows).await?;
        let backoff = |(host, until): (String, NaiveDateTime)| HostBackoff {
            host,
            until: until.and_utc(),
        };
        Ok(rows.into_iter().map(backoff).collect())
    }
}
