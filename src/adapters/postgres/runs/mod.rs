//! Finished runs. Those that end at the same moment are stored by one transaction: their claims
//! are locked and looked at, then one statement stores everything that belongs to them.

mod late;
pub(super) mod rows;
mod store;

pub(super) use store::RecordOutcome;

use super::{Postgres, Tables, error::database_error, records::row_limit};
use crate::{
    domain::{
        changes,
        name::{CodebaseName, RunId},
        publish::PublishStatus,
        run::{ResultCode, Run},
        schedule::Pair,
        time::Time,
    },
    ports::{
        Fault, RunRecorder, RunStore, RunStoreError,
        run_recorder::{LateOutcome, LateRun, NewRun, Recorded},
        run_store::{FinishedCounts, MAX_LIST_SIZE},
    },
};
use async_trait::async_trait;
use sqlx::PgConnection;
use std::collections::HashSet;

/// How many runs are listed by one statement: each may have some megabytes.
const LIST_BATCH_SIZE: usize = 10;

/// Returns why rows were refused, where it is because of what they say.
fn refusal(fault: &Fault) -> Option<String> {
    let error = database_error(fault)?;
    // Constraint violations (23), and values that do not fit their type (22).
    error
        .code()
        .filter(|code| code.starts_with("23") || code.starts_with("22"))
        .map(|_| error.message().to_owned())
}

fn store_error(fault: Fault) -> RunStoreError {
    match refusal(&fault) {
        Some(rule) => RunStoreError::Refused(rule),
        None => fault.into(),
    }
}

/// Brings `last_run` and the states of named change sets up to date for these runs: the triggers of
/// other migrations than ours may look before a run's branches are there, or not be there at all.
async fn refresh_summaries(connection: &mut PgConnection, batch: &[NewRun]) -> sqlx::Result<()> {
    let pairs = batch
        .iter()
        .map(|new| (new.run.codebase.to_string(), new.run.campaign.to_string()));
    let (codebases, campaigns): (Vec<String>, Vec<String>) = pairs.unzip();
    sqlx::query("SELECT runner_refresh_last_run($1::text[], $2::text[])")
        .bind(codebases)
        .bind(campaigns)
        .execute(&mut *connection)
        .await?;
    let named = batch.iter().filter_map(|new| new.run.key().change_set);
    let named: Vec<String> = named.collect();
    if named.is_empty() {
        return Ok(());
    }
    // After `last_run`, which the state depends on.
    sqlx::query("SELECT runner_refresh_change_sets($1::text[])")
        .bind(named)
        .execute(connection)
        .await
        .map(drop)
}

/// Reads runs, and their size as they are stored.
async fn sized_runs(
    rows: impl Future<Output = sqlx::Result<Vec<String>>>,
) -> sqlx::Result<(usize, Vec<Run>)> {
    let rows = rows.await?;
    let size = rows.iter().map(String::len).sum();
    Ok((size, rows::runs(rows)?))
}

impl Tables {
    async fn find_run(&self, id: &RunId) -> Result<Option<Run>, Fault> {
        let query = sqlx::query_scalar(include_str!("../sql/find_runs.sql")).bind([id.to_string()]);
        let found = sized_runs(query.fetch_all(self.connections()));
        Ok(self.run("look up a run", found).await?.1.pop())
    }

    /// Fails unless the worker of a run, if it names one, has an account.
    async fn check_worker(&self, run: &Run) -> Result<(), RunStoreError> {
        let Some(worker) = &run.worker else {
            return Ok(());
        };
        let query =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM worker WHERE name = $1)").bind(worker);
        let known = query.fetch_one(self.connections());
        if self.run("look up a worker", known).await? {
            Ok(())
        } else {
            Err(RunStoreError::UnknownWorker(worker.clone()))
        }
    }
}

#[async_trait]
impl RunRecorder for Postgres {
    #[tracing::instrument(
        level = "debug", name = "postgres.run_recorder.record", skip_all, fields(run.id = %new.run.id)
    )]
    async fn record(&self, new: NewRun) -> Result<Recorded, RunStoreError> {
        self.recordings.submit("store a run", new).await?
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.run_recorder.record_late", skip_all,
        fields(run.id = %late.run.id)
    )]
    async fn record_late(&self, late: LateRun) -> Result<LateOutcome, RunStoreError> {
        self.tables.record_late(late).await
    }
}

#[async_trait]
impl RunStore for Postgres {
    #[tracing::instrument(
        level = "debug", name = "postgres.run_store.run", skip_all, fields(run.id = %id)
    )]
    async fn run(&self, id: &RunId) -> Result<Option<Run>, RunStoreError> {
        Ok(self.tables.find_run(id).await?)
    }

    #[tracing::instrument(level = "debug", name = "postgres.run_store.runs_by_id", skip_all)]
    async fn runs_by_id(&self, ids: &[RunId]) -> Result<Vec<Run>, RunStoreError> {
        let (mut runs, mut size) = (vec![], 0);
        for ids in ids.chunks(LIST_BATCH_SIZE) {
            let texts: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let query = sqlx::query_scalar(include_str!("../sql/find_runs.sql")).bind(texts);
            let (batch_size, mut batch) = self
                .tables
                .read("look up runs", |connection| {
                    Box::pin(sized_runs(query.fetch_all(connection)))
                })
                .await?;
            batch.sort_by_key(|run| ids.iter().position(|id| *id == run.id));
            runs.extend(batch);
            size += batch_size;
            if size >= MAX_LIST_SIZE {
                break;
            }
        }
        Ok(runs)
    }

    #[tracing::instrument(
        level = "debug",
        name = "postgres.run_store.latest",
        skip_all,
        fields(limit)
    )]
    async fn latest(&self, limit: usize) -> Result<Vec<Run>, RunStoreError> {
        let (mut runs, mut size) = (vec![], 0);
        while runs.len() < limit && size < MAX_LIST_SIZE {
            let end = limit.min(runs.len() + LIST_BATCH_SIZE);
            let query = sqlx::query_scalar(include_str!("../sql/list_latest_runs.sql"));
            let query = query.bind(row_limit(end)).bind(row_limit(runs.len()));
            let (batch_size, batch) = self
                .tables
                .read("list the runs", |connection| {
                    Box::pin(sized_runs(query.fetch_all(connection)))
                })
                .await?;
            size += batch_size;
            runs.extend(batch);
            if runs.len() < end {
                break;
            }
        }
        // A run that was stored between two batches moves the others on.
        let mut seen = HashSet::new();
        runs.retain(|run| seen.insert(run.id.clone()));
        Ok(runs)
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.run_store.set_publish_status", skip_all,
        fields(run.id = %id, status = status.as_str())
    )]
    async fn set_publish_status(
        &self,
        id: &RunId,
        status: PublishStatus,
    ) -> Result<Option<Run>, RunStoreError> {
        let change = sqlx::query(include_str!("../sql/set_publish_status.sql"))
            .bind(id.as_str())
            .bind(status.as_str());
        let changed = change.execute(self.tables.connections());
        self.tables.run("set a publish status", changed).await?;
        let run = self.tables.find_run(id).await?;
        // Another status may have been set since; the caller gets the one that it set.
        Ok(run.map(|run| Run {
            publish_status: status,
            ..run
        }))
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.run_store.run_of_revision", skip_all,
        fields(codebase = %pair.codebase, campaign = %pair.campaign, revision)
    )]
    async fn run_of_revision(
        &self,
        pair: &Pair,
        revision: &str,
    ) -> Result<Option<Run>, RunStoreError> {
        let query = sqlx::query_scalar(include_str!("../sql/find_run_of_revision.sql"))
            .bind(pair.codebase.as_str())
            .bind(pair.campaign.as_str())
            .bind(revision);
        let find = async {
            let row: Option<String> = query.fetch_optional(self.tables.connections()).await?;
            row.as_deref().map(rows::run).transpose()
        };
        Ok(self
            .tables
            .run("look up the run of a revision", find)
            .await?)
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.run_store.last_build_version", skip_all,
        fields(%codebase, distribution)
    )]
    async fn last_build_version(
        &self,
        codebase: &CodebaseName,
        distribution: &str,
    ) -> Result<Option<String>, RunStoreError> {
        let query = sqlx::query_scalar(include_str!("../sql/list_build_versions.sql"))
            .bind(codebase.as_str())
            .bind(distribution);
        let versions = query.fetch_all(self.tables.connections());
        let versions: Vec<String> = self
            .tables
            .run("look up the last version built", versions)
            .await?;
        Ok(changes::highest(versions.iter().map(String::as_str)).map(str::to_owned))
    }

    #[tracing::instrument(level = "debug", name = "postgres.run_store.finished_since", skip_all)]
    async fn finished_since(&self, since: Time) -> Result<FinishedCounts, RunStoreError> {
        let query =
            sqlx::query_as(include_str!("../sql/count_finished_runs.sql")).bind(since.naive_utc());
        let rows: Vec<(String, i64)> = self
            .tables
            .read("count the finished runs", |connection| {
                Box::pin(query.fetch_all(connection))
            })
            .await?;
        let count = |(code, count): (String, i64)| {
            let count = u64::try_from(count).unwrap_or_default();
            (ResultCode::new(code), count)
        };
        Ok(rows.into_iter().map(count).collect())
    }

    #[tracing::instrument(level = "debug", name = "postgres.run_store.health_check", skip_all)]
    async fn health_check(&self) -> Result<(), RunStoreError> {
        // Needs a connection, and finds out without writing whether writing is possible.
        let action = "check the database";
        let query = sqlx::query_scalar("SELECT pg_is_in_recovery()");
        let read_only: bool = self
            .tables
            .run(action, query.fetch_one(self.tables.connections()))
            .await?;
        if read_only {
            Err(Fault::unavailable(action, "it is a read-only copy").into())
        } else {
            Ok(())
        }
    }
}
