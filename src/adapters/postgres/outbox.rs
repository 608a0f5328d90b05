//! News that is to be told, and which process does what only one may do.

use super::{
    Postgres,
    runs::{self, own, run_json},
};
use crate::ports::{
    Event, Fault, LeaderElection, Outbox,
    outbox::{OutboxEntry, OutboxId},
};
use async_trait::async_trait;
use std::time::Duration;

#[async_trait]
impl Outbox for Postgres {
    async fn pending(&self, limit: usize) -> Result<Vec<OutboxEntry>, Fault> {
        let query = sqlx::query_as(concat!(
            "SELECT news.id, news.publish_status, ",
            run_json!(),
            " FROM (SELECT * FROM runner_outbox ORDER BY id LIMIT $1) AS news
             CROSS JOIN LATERAL (SELECT * FROM run WHERE run.id = news.run_id OFFSET 0) AS run ",
            own!(),
            " ORDER BY news.id"
        ));
        let query = query.bind(i64::try_from(limit).unwrap_or(i64::MAX));
        let rows: Vec<(i64, Option<String>, String)> = self
            .tables
            .ask("look for news", query.fetch_all(self.tables.link.pool()))
            .await?;
        let news = rows.into_iter().map(|(id, status, run)| {
            let run = runs::run(&run).map_err(|e| super::fault("look for news", e))?;
            let status = status
                .map(|status| status.parse())
                .transpose()
                .map_err(|e| Fault::backend("look for news", e))?;
            Ok(OutboxEntry {
                id: id.cast_unsigned(),
                event: Event::of_run(run, status),
            })
        });
        news.collect()
    }

    async fn mark_published(&self, ids: &[OutboxId]) -> Result<(), Fault> {
        let ids: Vec<i64> = ids.iter().map(|id| id.cast_signed()).collect();
        let delete = sqlx::query("DELETE FROM runner_outbox WHERE id = ANY ($1)").bind(ids);
        self.tables
            .ask("settle news", delete.execute(self.tables.link.pool()))
            .await
            .map(drop)
    }
}

#[async_trait]
impl LeaderElection for Postgres {
    async fn acquire(&self, role: &str, holder: &str, time: Duration) -> Result<bool, Fault> {
        // By the database's clock: those of the runners' machines may differ.
        let take = sqlx::query(
            "INSERT INTO runner_lease AS held (role, holder, until) VALUES ($1, $2, now() + make_interval(secs => $3))
             ON CONFLICT (role) DO UPDATE SET holder = excluded.holder, until = excluded.until
             WHERE held.holder = excluded.holder OR held.until < now()",
        );
        let take = take.bind(role).bind(holder).bind(time.as_secs_f64());
        let taken = self
            .tables
            .ask("hold a role", take.execute(self.tables.link.pool()))
            .await?;
        Ok(taken.rows_affected() > 0)
    }

    async fn resign(&self, role: &str, holder: &str) -> Result<(), Fault> {
        let delete = sqlx::query("DELETE FROM runner_lease WHERE role = $1 AND holder = $2")
            .bind(role)
            .bind(holder);
        self.tables
            .ask("let a role go", delete.execute(self.tables.link.pool()))
            .await
            .map(drop)
    }
}
