//! Pauses and concurrency limits, in `runner_pause` and `runner_limit`.

use super::{Postgres, notify::UNKNOWN_COUNT};
use crate::{
    domain::{
        Invalid,
        pause::{ConcurrencyLimit, Pause, Scope},
        time::Time,
    },
    ports::{Fault, PauseStore},
};
use async_trait::async_trait;
use chrono::NaiveDateTime;

/// Kind, name, reason, start and end of a pause.
type PauseRow = (String, String, String, NaiveDateTime, Option<NaiveDateTime>);

fn scope(kind: &str, name: &str) -> Result<Scope, Fault> {
    Scope::parse(kind, Some(name)).map_err(|e: Invalid| Fault::backend("read a pause or limit", e))
}

fn pause_of((kind, name, reason, since, until): PauseRow) -> Result<Pause, Fault> {
    Ok(Pause {
        scope: scope(&kind, &name)?,
        reason,
        since: since.and_utc(),
        until: until.map(|until| until.and_utc()),
    })
}

fn limit_of((kind, name, most): (String, String, i64)) -> Result<ConcurrencyLimit, Fault> {
    Ok(ConcurrencyLimit {
        scope: scope(&kind, &name)?,
        most: u32::try_from(most).unwrap_or(u32::MAX),
    })
}

impl Postgres {
    /// Deletes the one row of a scope, and has those who wait look for items; returns whether
    /// there was one.
    async fn delete_scope(
        &self,
        action: &'static str,
        delete: &'static str,
        scope: &Scope,
    ) -> Result<bool, Fault> {
        let delete = sqlx::query(delete).bind(scope.kind()).bind(scope.name());
        let deleted = self
            .tables
            .run(action, delete.execute(self.tables.connections()))
            .await?;
        self.tables.cursor.item_available(None);
        self.tables.notify_available(UNKNOWN_COUNT);
        Ok(deleted.rows_affected() > 0)
    }
}

#[async_trait]
impl PauseStore for Postgres {
    #[tracing::instrument(
        level = "debug", name = "postgres.pauses.pause", skip_all,
        fields(scope.kind = pause.scope.kind(), scope.name = pause.scope.name())
    )]
    async fn pause(&self, pause: Pause) -> Result<(), Fault> {
        let write = sqlx::query(include_str!("sql/pause.sql"))
            .bind(pause.scope.kind())
            .bind(pause.scope.name())
            .bind(&pause.reason)
            .bind(pause.since.naive_utc())
            .bind(pause.until.map(|until| until.naive_utc()));
        self.tables
            .run("pause", write.execute(self.tables.connections()))
            .await
            .map(drop)
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.pauses.unpause", skip_all,
        fields(scope.kind = scope.kind(), scope.name = scope.name())
    )]
    async fn unpause(&self, scope: &Scope) -> Result<bool, Fault> {
        let delete = "DELETE FROM runner_pause WHERE kind = $1 AND name = $2";
        self.delete_scope("end a pause", delete, scope).await
    }

    #[tracing::instrument(level = "debug", name = "postgres.pauses.pauses", skip_all)]
    async fn pauses(&self, now: Time) -> Result<Vec<Pause>, Fault> {
        let query = sqlx::query_as(include_str!("sql/list_pauses.sql")).bind(now.naive_utc());
        let rows = query.fetch_all(self.tables.connections());
        let rows: Vec<PauseRow> = self.tables.run("list the pauses", rows).await?;
        rows.into_iter().map(pause_of).collect()
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.pauses.set_limit", skip_all,
        fields(scope.kind = limit.scope.kind(), scope.name = limit.scope.name())
    )]
    async fn set_limit(&self, limit: ConcurrencyLimit) -> Result<(), Fault> {
        let write = sqlx::query(include_str!("sql/set_limit.sql"))
            .bind(limit.scope.kind())
            .bind(limit.scope.name())
            .bind(i64::from(limit.most));
        self.tables
            .run("limit", write.execute(self.tables.connections()))
            .await?;
        // The limit may be higher than the one before.
        self.tables.notify_available(UNKNOWN_COUNT);
        Ok(())
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.pauses.remove_limit", skip_all,
        fields(scope.kind = scope.kind(), scope.name = scope.name())
    )]
    async fn remove_limit(&self, scope: &Scope) -> Result<bool, Fault> {
        let delete = "DELETE FROM runner_limit WHERE kind = $1 AND name = $2";
        self.delete_scope("end a limit", delete, scope).await
    }

    #[tracing::instrument(level = "debug", name = "postgres.pauses.limits", skip_all)]
    async fn limits(&self) -> Result<Vec<ConcurrencyLimit>, Fault> {
        let query = sqlx::query_as(include_str!("sql/list_limits.sql"));
        let rows = query.fetch_all(self.tables.connections());
        let rows: Vec<(String, String, i64)> = self.tables.run("list the limits", rows).await?;
        rows.into_iter().map(limit_of).collect()
    }
}
