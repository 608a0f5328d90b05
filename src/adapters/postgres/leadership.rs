//! Leader election by rows of `runner_leadership`.

use super::Postgres;
use crate::ports::{Fault, LeaderElection};
use async_trait::async_trait;
use std::time::Duration;

#[async_trait]
impl LeaderElection for Postgres {
    #[tracing::instrument(
        level = "debug",
        name = "postgres.leadership.acquire",
        skip_all,
        fields(role, holder)
    )]
    async fn acquire(&self, role: &str, holder: &str, time: Duration) -> Result<bool, Fault> {
        let acquire = sqlx::query(include_str!("sql/acquire_leadership.sql"))
            .bind(role)
            .bind(holder)
            .bind(time.as_secs_f64());
        let acquired = acquire.execute(self.tables.connections());
        let acquired = self.tables.run("acquire a role", acquired).await?;
        Ok(acquired.rows_affected() > 0)
    }

    #[tracing::instrument(
        level = "debug",
        name = "postgres.leadership.resign",
        skip_all,
        fields(role, holder)
    )]
    async fn resign(&self, role: &str, holder: &str) -> Result<(), Fault> {
        let delete = sqlx::query("DELETE FROM runner_leadership WHERE role = $1 AND holder = $2")
            .bind(role)
            .bind(holder);
        let deleted = delete.execute(self.tables.connections());
        self.tables.run("resign a role", deleted).await.map(drop)
    }
}
