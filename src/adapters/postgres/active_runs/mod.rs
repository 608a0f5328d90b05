//! Active runs: `runner_active_run` has a row for each item that a worker holds.
//!
//! An item is claimed by locking its row in `queue` (those that others are claiming are skipped)
//! and inserting its active run. An active run that another process committed between our snapshot
//! and our lock makes the insert do nothing, and the next item is claimed instead.

mod batch;
mod orphans;
mod rows;

pub(super) use batch::ClaimOutcome;
pub(super) use orphans::Orphans;

use super::{Postgres, Tables, error::Abort, next_items::Statement, queue, records::write};
use crate::{
    domain::{
        active_run::{ActiveRun, Claimant},
        name::RunId,
        time::Time,
    },
    ports::{
        ActiveRunStore, ActiveRunStoreError, Fault,
        active_runs::{ActiveRunUpdate, ClaimRequest, Claimed, Renewal},
    },
};
use async_trait::async_trait;
use sqlx::PgConnection;

/// Deletes the row of an active run, and enqueues the request that is pending for its item.
async fn release(
    connection: &mut PgConnection,
    id: RunId,
    token: &str,
    now: Time,
) -> Result<(), Abort<ActiveRunStoreError>> {
    let queue_id: Option<i64> = sqlx::query_scalar(
        "SELECT queue_id FROM runner_active_run WHERE run_id = $1 AND token = $2",
    )
    .bind(id.as_str())
    .bind(token)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(queue_id) = queue_id else {
        return Err(Abort::Refused(ActiveRunStoreError::ClaimLost(id)));
    };
    // The item is locked first, as everywhere; an enqueue that holds it may be about to store its
    // request with the active run.
    sqlx::query("SELECT FROM queue WHERE id = $1 FOR UPDATE")
        .bind(queue_id)
        .execute(&mut *connection)
        .await?;
    let pending: Option<Option<String>> = sqlx::query_scalar(
        "DELETE FROM runner_active_run WHERE run_id = $1 AND token = $2
         RETURNING pending_enqueue::text",
    )
    .bind(id.as_str())
    .bind(token)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(pending) = pending else {
        return Err(Abort::Refused(ActiveRunStoreError::ClaimLost(id)));
    };
    if let Some(pending) = pending {
        queue::enqueue_pending(connection, &pending, now).await?;
    }
    Ok(())
}

impl Tables {
    /// Releases an item; a request that is pending for it is enqueued.
    async fn release(&self, id: &RunId, token: &str, now: Time) -> Result<(), ActiveRunStoreError> {
        let released = self.transaction("release a claim", |connection| {
            let (id, token) = (id.clone(), token.to_owned());
            Box::pin(async move { release(connection, id, &token, now).await })
        });
        released.await?;
        self.cursor.item_available(None);
        self.notify_available(1);
        Ok(())
    }

    /// Runs a statement that returns at most one active run.
    async fn one_active_run(
        &self,
        action: &'static str,
        statement: Statement<'_>,
    ) -> Result<Option<ActiveRun>, Fault> {
        let run = async {
            let row = statement.fetch_optional(self.connections()).await?;
            row.as_ref().map(rows::active_run).transpose()
        };
        self.run(action, run).await
    }
}

#[async_trait]
impl ActiveRunStore for Postgres {
    #[tracing::instrument(
        level = "debug", name = "postgres.active_runs.claim", skip_all,
        fields(run.id = %request.run_id)
    )]
    async fn claim(&self, request: ClaimRequest) -> Result<Option<Claimed>, ActiveRunStoreError> {
        Ok(self.claims.submit("claim an item", request).await??)
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.active_runs.update", skip_all, fields(run.id = %id)
    )]
    async fn update(
        &self,
        id: &RunId,
        token: &str,
        update: ActiveRunUpdate,
    ) -> Result<(), ActiveRunStoreError> {
        let (action, statement) = match update {
            ActiveRunUpdate::Probed { vcs, resume_from } => {
                let statement = sqlx::query(include_str!("../sql/store_probe.sql"))
                    .bind(id.as_str())
                    .bind(token)
                    .bind(write(&vcs))
                    .bind(resume_from.map(|run| run.to_string()));
                ("store what a probe found", statement)
            }
            ActiveRunUpdate::Pinged { failures } => {
                let statement = sqlx::query(
                    "UPDATE runner_active_run SET failures = $3 WHERE run_id = $1 AND token = $2",
                )
                .bind(id.as_str())
                .bind(token)
                .bind(i32::try_from(failures).unwrap_or(i32::MAX));
                ("store the result of a ping", statement)
            }
            ActiveRunUpdate::Responded => {
                let statement = sqlx::query(
                    "UPDATE runner_active_run
                     SET claimant = claimant || '{\"has_responded\": true}'
                     WHERE run_id = $1 AND token = $2",
                )
                .bind(id.as_str())
                .bind(token);
                ("store that a worker has responded", statement)
            }
        };
        let changed = statement.execute(self.tables.connections());
        let changed = self.tables.run(action, changed).await?;
        if changed.rows_affected() == 0 {
            Err(ActiveRunStoreError::ClaimLost(id.clone()))
        } else {
            Ok(())
        }
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.active_runs.get", skip_all, fields(run.id = %id)
    )]
    async fn get(&self, id: &RunId) -> Result<Option<ActiveRun>, ActiveRunStoreError> {
        let query = sqlx::query(include_str!("../sql/find_active_run.sql")).bind(id.as_str());
        Ok(self.tables.one_active_run("look up a claim", query).await?)
    }

    #[tracing::instrument(level = "debug", name = "postgres.active_runs.list", skip_all)]
    async fn list(&self) -> Result<Vec<ActiveRun>, ActiveRunStoreError> {
        let query = sqlx::query(include_str!("../sql/list_active_runs.sql"));
        let list = async {
            let rows = query.fetch_all(self.tables.connections()).await?;
            rows.iter().map(rows::active_run).collect()
        };
        Ok(self.tables.run("list the claims", list).await?)
    }

    #[tracing::instrument(level = "debug", name = "postgres.active_runs.held_by", skip_all)]
    async fn held_by(&self, claimant: &Claimant) -> Result<Vec<ActiveRun>, ActiveRunStoreError> {
        let Some(backchannel) = &claimant.backchannel else {
            return Ok(vec![]);
        };
        let query = sqlx::query(include_str!("../sql/list_runs_held_by.sql"))
            .bind(&claimant.worker)
            .bind(write(backchannel));
        let list = async {
            let rows = query.fetch_all(self.tables.connections()).await?;
            rows.iter().map(rows::active_run).collect()
        };
        Ok(self.tables.run("list the claims of a worker", list).await?)
    }

    #[tracing::instrument(level = "debug", name = "postgres.active_runs.count_held_by", skip_all)]
    async fn count_held_by(&self, worker: &str) -> Result<u64, ActiveRunStoreError> {
        let query = sqlx::query_scalar(
            "SELECT count(*) FROM runner_active_run WHERE claimant ->> 'worker' = $1",
        )
        .bind(worker);
        let count = query.fetch_one(self.tables.connections());
        let count: i64 = self
            .tables
            .run("count the claims of a worker", count)
            .await?;
        Ok(count.cast_unsigned())
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.active_runs.renew", skip_all, fields(run.id = %id)
    )]
    async fn renew(
        &self,
        id: &RunId,
        token: &str,
        renewal: Renewal,
    ) -> Result<ActiveRun, ActiveRunStoreError> {
        let update = sqlx::query(include_str!("../sql/renew_active_run.sql"))
            .bind(id.as_str())
            .bind(token)
            .bind(renewal.now.naive_utc())
            .bind((renewal.now + renewal.lease).naive_utc());
        let renewed = self.tables.one_active_run("renew a claim", update).await?;
        let run = renewed.ok_or_else(|| ActiveRunStoreError::ClaimLost(id.clone()))?;
        let worker = run.claimant.worker.clone();
        self.tables
            .record_last_seen(worker.map(|worker| (worker, run.keepalive)))
            .await;
        Ok(run)
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.active_runs.cancel", skip_all, fields(run.id = %id)
    )]
    async fn cancel(
        &self,
        id: &RunId,
        reason: &str,
    ) -> Result<Option<ActiveRun>, ActiveRunStoreError> {
        let update = sqlx::query(include_str!("../sql/cancel_active_run.sql"))
            .bind(id.as_str())
            .bind(reason);
        Ok(self.tables.one_active_run("cancel a claim", update).await?)
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.active_runs.release", skip_all, fields(run.id = %id)
    )]
    async fn release(&self, id: &RunId, token: &str, now: Time) -> Result<(), ActiveRunStoreError> {
        self.tables.release(id, token, now).await
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.active_runs.adopt", skip_all, fields(run.id = %run.id)
    )]
    async fn adopt(&self, run: ActiveRun) -> Result<bool, ActiveRunStoreError> {
        let insert = sqlx::query(include_str!("../sql/adopt_active_run.sql"))
            .bind(run.id.as_str())
            .bind(run.item.id)
            .bind(&run.token)
            .bind(write(&run.claimant))
            .bind(write(&run.item))
            .bind(run.start_time.naive_utc())
            .bind(run.keepalive.naive_utc())
            .bind(write(&run.vcs))
            .bind(run.resume_from.as_ref().map(RunId::as_str))
            .bind(run.host)
            .bind(run.lease_until.map(|until| until.naive_utc()))
            .bind(run.cancel)
            .bind(i32::try_from(run.failures).unwrap_or(i32::MAX));
        let inserted = insert.execute(self.tables.connections());
        let inserted = self.tables.run("adopt a claim", inserted).await?;
        Ok(inserted.rows_affected() > 0)
    }
}
