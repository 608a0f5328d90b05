//! Finished runs. Those that come at the same moment are stored by one transaction: their claims are locked and looked
//! at, then one statement stores everything that belongs to them.

use super::{
    Abort, Postgres, Tables,
    active_runs::again,
    pool::lost_a_race,
    queue, read,
    runs::{self, own, run_json},
};
use crate::{
    domain::{
        changes,
        name::{CodebaseName, RunId},
        publish::PublishStatus,
        queue::EnqueueRequest,
        retry::{Disposition, ItemState},
        run::{ResultCode, Run},
        schedule::Pair,
        time::Time,
    },
    ports::{
        Fault, RunRecorder, RunStore, RunStoreError,
        run_recorder::{LateOutcome, LateRun, NewRun, Recorded},
        run_store::FinishedCounts,
    },
};
use async_trait::async_trait;
use sqlx::PgConnection;
use std::collections::HashSet;

/// A run to be stored, and what came of it.
pub(super) type New = NewRun;
pub(super) type Done = Result<Recorded, RunStoreError>;

/// The rows of `runs::row`.
macro_rules! given {
    () => {
        "WITH given AS MATERIALIZED (SELECT * FROM json_to_recordset($1::json) AS row (token text,
        id text, queue_id bigint, codebase text, suite text, change_set text, command text, result_code text, description text,
        start_time timestamp, finish_time timestamp, instigated_context text, context text, main_branch_revision text, revision text,
        result json, value int, vcs_type vcs_type, branch_url text, subpath text, target_branch_url text, worker text, worker_link text,
        failure_stage text, failure_details json, failure_transient bool, resume_from text, publish_status publish_status,
        logfilenames text[], facts jsonb, branches json, tags json, build json, own_change_set text, stored timestamp,
        back jsonb, back_not_before timestamp, back_parked bool, seen timestamp, worker_at_fault bool))"
    };
}

macro_rules! tags {
    () => {
        "(SELECT array_agg(ROW(actual_name, tag.revision)::result_tag) FROM json_to_recordset(tags) AS tag (actual_name text, revision text))"
    };
}

/// What belongs to each run, whatever becomes of its item: of the rows `new`.
macro_rules! parts {
    () => {
        ", branches AS (INSERT INTO new_result_branch (run_id, role, remote_name, base_revision, revision)
        SELECT new.id, branch.* FROM new, json_to_recordset(new.branches)
            AS branch (role text, remote_name text, base_revision text, revision text)),
    builds AS (INSERT INTO debian_build (run_id, version, distribution, source, binary_packages, lintian_result)
        SELECT new.id, build.* FROM new, json_to_recordset(new.build)
            AS build (version text, distribution text, source text, binary_packages text[], lintian_result json)),
    items AS (DELETE FROM queue WHERE id = ANY (ARRAY(SELECT queue_id FROM new WHERE back IS NULL))
        AND (id, codebase::text, suite::text) IN (SELECT queue_id, codebase, suite FROM new)),
    forgotten AS (DELETE FROM runner_item WHERE queue_id = ANY (ARRAY(SELECT queue_id FROM new WHERE back IS NULL))),
    follow_ups AS (INSERT INTO runner_follow_up (run_id, codebase, campaign, change_set, context)
        SELECT id, codebase, suite, own_change_set, context FROM new WHERE back IS NULL),
    news AS (INSERT INTO runner_outbox (run_id) SELECT id FROM new)"
    };
}

/// Stores runs with all that belongs to them: those that are held with the right token, and for whose items no wish waits.
/// Answers which. Locks the items first and then the claims.
const STORE: &str = concat!(
    given!(),
    ", locked AS MATERIALIZED (SELECT id FROM queue WHERE id = ANY (ARRAY(SELECT queue_id FROM given)) ORDER BY id FOR UPDATE),
    held AS MATERIALIZED (SELECT run_id, token, keepalive FROM runner_claim WHERE run_id = ANY (ARRAY(SELECT id FROM given))
        AND wish IS NULL AND (SELECT count(*) FROM locked) >= 0 ORDER BY queue_id FOR UPDATE),
    new AS MATERIALIZED (SELECT * FROM given WHERE EXISTS (SELECT FROM held
        WHERE held.run_id = given.id AND held.token = given.token AND (given.seen IS NULL OR held.keepalive <= given.seen)))",
    ", sets AS (INSERT INTO change_set (id, campaign)
        SELECT DISTINCT ON (change_set) change_set, suite FROM new ORDER BY change_set ON CONFLICT DO NOTHING),
    runs AS (INSERT INTO run (id, command, description, start_time, finish_time, result_code, instigated_context, context,
            main_branch_revision, revision, result, suite, vcs_type, branch_url, logfilenames, publish_status, value, worker, worker_link,
            result_tags, subpath, failure_stage, failure_details, target_branch_url, failure_transient, resume_from, change_set, codebase)
        SELECT id, command, description, start_time, finish_time, result_code, instigated_context, context,
            main_branch_revision, revision, result, suite, vcs_type, branch_url, logfilenames, publish_status, value, worker, worker_link, ",
    tags!(),
    ", subpath, failure_stage, failure_details, target_branch_url, failure_transient, resume_from, change_set, codebase
        FROM new),
    own AS (INSERT INTO runner_run (run_id, stored, queue_id, facts) SELECT id, stored, queue_id, facts FROM new)",
    parts!(),
    ", back AS (INSERT INTO runner_item (queue_id, state, not_before, parked)
        SELECT queue_id, back, back_not_before, back_parked FROM new WHERE back IS NOT NULL
        ON CONFLICT (queue_id) DO UPDATE SET state = excluded.state, not_before = excluded.not_before, parked = excluded.parked),
    claims AS (DELETE FROM runner_claim WHERE run_id = ANY (ARRAY(SELECT id FROM new))),
    well AS (UPDATE runner_worker SET failures = 0 WHERE failures > 0
        AND name = ANY (ARRAY(SELECT worker FROM new WHERE worker_at_fault IS FALSE))),
    blamed AS (INSERT INTO runner_worker AS known (name, failures)
        SELECT worker, count(*) FROM new WHERE worker_at_fault AND worker IS NOT NULL GROUP BY worker ORDER BY worker
        ON CONFLICT (name) DO UPDATE SET failures = known.failures + excluded.failures)
    SELECT id FROM new"
);

/// Puts a run in the place of the one of its id, whose branches and builds are gone.
const REPLACE: &str = concat!(
    given!(),
    ", new AS MATERIALIZED (SELECT * FROM given),
    replaced AS (UPDATE run SET command = new.command, description = new.description, start_time = new.start_time, finish_time = new.finish_time,
            result_code = new.result_code, context = new.context, main_branch_revision = new.main_branch_revision,
            revision = new.revision, result = new.result, vcs_type = new.vcs_type, branch_url = new.branch_url, logfilenames = new.logfilenames,
            value = new.value, result_tags = ",
    tags!(),
    ", subpath = new.subpath, failure_stage = new.failure_stage, failure_details = new.failure_details, target_branch_url = new.target_branch_url,
            failure_transient = new.failure_transient, resume_from = new.resume_from
        FROM new WHERE run.id = new.id AND run.id = ANY (ARRAY(SELECT id FROM new))),
    own AS (UPDATE runner_run SET facts = new.facts, stored = new.stored, sequence = nextval(pg_get_serial_sequence('runner_run', 'sequence'))
        FROM new WHERE runner_run.run_id = new.id)",
    parts!(),
    " SELECT id FROM new"
);

/// Of a stored run: whether it was given up, and whether its item is held now or was run again after it.
const SINCE: &str = "SELECT coalesce((own.facts ->> 'given_up')::bool, false),
        (SELECT run_id FROM runner_claim WHERE queue_id = own.queue_id) IS NOT NULL
        OR EXISTS (SELECT FROM run AS other
            CROSS JOIN LATERAL (SELECT queue_id, sequence FROM runner_run WHERE run_id = other.id OFFSET 0) AS later
            WHERE other.codebase = $2 AND other.suite || '' = $3 AND other.id <> own.run_id
                AND later.queue_id = own.queue_id AND later.sequence > own.sequence)
    FROM runner_run AS own WHERE own.run_id = $1 FOR UPDATE";

/// Brings `last_run` up to date, in databases whose triggers are not ours: theirs may look before a run's branches are
/// there, or not be there at all.
const REFRESH: &str = "SELECT runner_refresh_last_run($1::text[], $2::text[])";

fn rows<'a>(batch: impl IntoIterator<Item = &'a New>) -> String {
    serde_json::Value::Array(batch.into_iter().map(runs::row).collect()).to_string()
}

/// Stores one run, also one whose item has a wish that waits; false when it is not held with that token.
async fn store_one(connection: &mut PgConnection, new: &New) -> Result<bool, Abort<Fault>> {
    sqlx::query("SELECT FROM queue WHERE id = $1 FOR UPDATE")
        .bind(new.run.queue_id)
        .execute(&mut *connection)
        .await?;
    let take = sqlx::query_scalar(
        "UPDATE runner_claim AS claim SET wish = NULL FROM (SELECT run_id, wish FROM runner_claim
             WHERE run_id = $1 AND token = $2 AND ($3::timestamp IS NULL OR keepalive <= $3) FOR UPDATE) AS before
         WHERE claim.run_id = before.run_id RETURNING before.wish::text",
    );
    let take = take
        .bind(new.run.id.as_str())
        .bind(&new.token)
        .bind(new.unless_seen_after.map(|seen| seen.naive_utc()));
    let wish: Option<Option<String>> = take.fetch_optional(&mut *connection).await?;
    let Some(wish) = wish else { return Ok(false) };
    sqlx::query(STORE)
        .bind(rows([new]))
        .execute(&mut *connection)
        .await?;
    refresh(connection, [new]).await?;
    if let Some(wish) = wish {
        let queued =
            queue::enqueue(connection, vec![read::<EnqueueRequest>(&wish)?], new.now).await;
        queued.map_err(|abort| {
            abort.into_other(|error| Fault::backend("queue what waited", error))
        })?;
    }
    Ok(true)
}

async fn refresh<'a>(
    connection: &mut PgConnection,
    batch: impl IntoIterator<Item = &'a New>,
) -> sqlx::Result<()> {
    let pairs = batch
        .into_iter()
        .map(|new| (new.run.codebase.to_string(), new.run.campaign.to_string()));
    let (codebases, campaigns): (Vec<String>, Vec<String>) = pairs.unzip();
    sqlx::query(REFRESH)
        .bind(codebases)
        .bind(campaigns)
        .execute(connection)
        .await
        .map(drop)
}

/// Puts a late result in its place; none when no such run is there, or it was not given up.
async fn replace(connection: &mut PgConnection, new: &New) -> sqlx::Result<Option<LateOutcome>> {
    let run = &new.run;
    sqlx::query("SELECT FROM queue WHERE id = $1 FOR UPDATE")
        .bind(run.queue_id)
        .execute(&mut *connection)
        .await?;
    let since = sqlx::query_as(SINCE)
        .bind(run.id.as_str())
        .bind(run.codebase.as_str())
        .bind(run.campaign.as_str());
    let since: Option<(bool, bool)> = since.fetch_optional(&mut *connection).await?;
    let Some((true, run_again)) = since else {
        return Ok(None);
    };
    // The item of another run is left alone.
    let disposition = if run_again {
        Disposition::Requeue(ItemState::default())
    } else {
        Disposition::Complete
    };
    let new = &NewRun {
        disposition,
        ..new.clone()
    };
    for clear in [
        "DELETE FROM new_result_branch WHERE run_id = $1",
        "DELETE FROM debian_build WHERE run_id = $1",
    ] {
        sqlx::query(clear)
            .bind(run.id.as_str())
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query(REPLACE)
        .bind(rows([new]))
        .execute(&mut *connection)
        .await?;
    refresh(connection, [new]).await?;
    Ok(Some(if run_again {
        LateOutcome::ReplacedButRequeued
    } else {
        LateOutcome::Replaced
    }))
}

/// A late result as a row: it has no claim, and what its fields for that say does not matter.
fn of_late(late: LateRun) -> New {
    NewRun {
        run: late.run,
        token: String::new(),
        now: late.now,
        disposition: Disposition::Complete,
        unless_seen_after: None,
        worker_at_fault: None,
    }
}

fn refused(fault: Fault) -> RunStoreError {
    match breaks_a_rule(&fault) {
        Some(rule) => RunStoreError::Refused(rule),
        None => fault.into(),
    }
}

/// Whether the rows were refused for what they say.
fn breaks_a_rule(fault: &Fault) -> Option<String> {
    let source = super::answer_of(fault)?;
    // Constraint violations, and values that do not fit their type.
    source
        .code()
        .filter(|code| code.starts_with("23") || code.starts_with("22"))
        .map(|_| source.message().to_owned())
}

impl Tables {
    /// Stores what can be stored together; answers the ids.
    async fn store(&self, batch: &[New]) -> Result<HashSet<String>, Fault> {
        let rows = rows(batch);
        let stored: Vec<String> = if self.has_our_triggers {
            // One statement is a transaction of its own.
            self.ask(
                "store runs",
                sqlx::query_scalar(STORE)
                    .bind(rows)
                    .fetch_all(self.link.pool()),
            )
            .await?
        } else {
            let store = self.transaction::<_, Fault>("store runs", |connection| {
                let (rows, batch) = (rows.clone(), batch.to_vec());
                Box::pin(async move {
                    let stored = sqlx::query_scalar(STORE)
                        .bind(rows)
                        .fetch_all(&mut *connection)
                        .await?;
                    refresh(connection, &batch).await?;
                    Ok(stored)
                })
            });
            store.await?
        };
        Ok(stored.into_iter().collect())
    }

    async fn run(&self, id: &RunId) -> Result<Option<Run>, Fault> {
        let query = sqlx::query_scalar(concat!(
            "SELECT ",
            run_json!(),
            " FROM run ",
            own!(),
            " WHERE run.id = $1"
        ));
        let look = async {
            let row: Option<String> = query
                .bind(id.as_str())
                .fetch_optional(self.link.pool())
                .await?;
            row.as_deref().map(runs::run).transpose()
        };
        self.ask("look up a run", look).await
    }

    /// Stores one run that could not be stored among others, or tells why not.
    async fn record(&self, new: New) -> Done {
        if let Some(known) = self.run(&new.run.id).await? {
            return Ok(Recorded::AlreadyStored(Box::new(known)));
        }
        self.check_worker(&new.run).await?;
        let stored = self.transaction("store a run", |connection| {
            let new = new.clone();
            Box::pin(async move { store_one(connection, &new).await })
        });
        match stored.await {
            Ok(true) => {
                // A wish that waited may have been queued.
                self.frontier.opened(None);
                self.notify_available(1);
                Ok(Recorded::Stored)
            }
            // Nobody holds it with that token; somebody may have stored it just now.
            Ok(false) => match self.run(&new.run.id).await? {
                Some(known) => Ok(Recorded::AlreadyStored(Box::new(known))),
                None => Err(RunStoreError::ClaimLost(new.run.id)),
            },
            Err(fault) => Err(refused(fault)),
        }
    }

    async fn check_worker(&self, run: &Run) -> Result<(), RunStoreError> {
        let Some(worker) = &run.worker else {
            return Ok(());
        };
        let query =
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM worker WHERE name = $1)").bind(worker);
        let known: bool = self
            .ask("look up a worker", query.fetch_one(self.link.pool()))
            .await?;
        if known {
            Ok(())
        } else {
            Err(RunStoreError::UnknownWorker(worker.clone()))
        }
    }

    pub(super) async fn record_all(self, batch: Vec<New>) -> Vec<Done> {
        let by_worker = batch.iter().filter(|new| !new.run.given_up);
        let seen: Vec<_> = by_worker
            .filter_map(|new| Some((new.run.worker.clone()?, new.now)))
            .collect();
        let distinct: HashSet<&RunId> = batch.iter().map(|new| &new.run.id).collect();
        let together = if distinct.len() == batch.len() {
            self.store(&batch).await
        } else {
            Ok(HashSet::new())
        };
        let stored = match together {
            Ok(stored) => stored,
            // One of them spoils it for all, or others were in the way: each is tried for itself.
            Err(fault) if breaks_a_rule(&fault).is_some() || lost_a_race(&fault) => HashSet::new(),
            Err(fault) => return batch.iter().map(|_| Err(again(&fault).into())).collect(),
        };
        if !stored.is_empty() {
            // What ended makes room where runs are limited, for workers who wait here.
            self.availability.add(stored.len());
        }
        if batch
            .iter()
            .any(|new| new.disposition != Disposition::Complete)
        {
            self.frontier.opened(None);
            self.notify_available(1);
        }
        let mut answers = Vec::with_capacity(batch.len());
        for new in batch {
            answers.push(if stored.contains(new.run.id.as_str()) {
                Ok(Recorded::Stored)
            } else {
                self.record(new).await
            });
        }
        if answers.iter().any(Result::is_ok) {
            self.note_seen(seen).await;
        }
        answers
    }
}

#[async_trait]
impl RunRecorder for Postgres {
    async fn record(&self, new: NewRun) -> Result<Recorded, RunStoreError> {
        self.results.ask("store a run", new).await?
    }

    async fn record_late(&self, late: LateRun) -> Result<LateOutcome, RunStoreError> {
        self.tables.check_worker(&late.run).await?;
        let new = of_late(late);
        let replaced = self
            .tables
            .transaction::<_, Fault>("store a late run", |connection| {
                let new = new.clone();
                Box::pin(async move { Ok(replace(connection, &new).await?) })
            });
        match replaced.await.map_err(refused)? {
            Some(late) => Ok(late),
            None => match self.tables.run(&new.run.id).await? {
                Some(known) => Ok(LateOutcome::NotGivenUp(Box::new(known))),
                None => Err(RunStoreError::ClaimLost(new.run.id)),
            },
        }
    }
}

#[async_trait]
impl RunStore for Postgres {
    async fn run(&self, id: &RunId) -> Result<Option<Run>, RunStoreError> {
        Ok(self.tables.run(id).await?)
    }

    async fn latest(&self, limit: usize) -> Result<Vec<Run>, RunStoreError> {
        let query = sqlx::query_scalar(concat!(
            "WITH newest AS (
                (SELECT run_id AS id, stored, sequence FROM runner_run ORDER BY stored DESC, sequence DESC LIMIT $1)
                UNION ALL
                (SELECT id, finish_time, 0 FROM run WHERE finish_time IS NOT NULL
                     AND (SELECT run_id FROM runner_run WHERE run_id = run.id) IS NULL ORDER BY finish_time DESC LIMIT $1)
                ORDER BY 2 DESC, 3 DESC LIMIT $1)
             SELECT ",
            run_json!(),
            " FROM newest CROSS JOIN LATERAL (SELECT * FROM run WHERE run.id = newest.id OFFSET 0) AS run ",
            own!(),
            " ORDER BY newest.stored DESC, newest.sequence DESC"
        ));
        let look = async {
            runs::runs(
                query
                    .bind(i64::try_from(limit).unwrap_or(i64::MAX))
                    .fetch_all(self.tables.link.pool())
                    .await?,
            )
        };
        Ok(self.tables.ask("list the runs", look).await?)
    }

    async fn set_publish_status(
        &self,
        id: &RunId,
        status: PublishStatus,
    ) -> Result<Option<Run>, RunStoreError> {
        let change = sqlx::query(
            "WITH changed AS (UPDATE run SET publish_status = $2::publish_status WHERE id = $1 RETURNING id)
             INSERT INTO runner_outbox (run_id, publish_status) SELECT id, $2 FROM changed",
        );
        let change = change.bind(id.as_str()).bind(status.as_str());
        self.tables
            .ask(
                "set a publish status",
                change.execute(self.tables.link.pool()),
            )
            .await?;
        let run = self.tables.run(id).await?;
        Ok(run.map(|run| Run {
            publish_status: status,
            ..run
        }))
    }

    async fn run_of_revision(
        &self,
        pair: &Pair,
        revision: &str,
    ) -> Result<Option<Run>, RunStoreError> {
        let query = sqlx::query_scalar(concat!(
            "SELECT ",
            run_json!(),
            " FROM run ",
            own!(),
            " WHERE run.codebase = $1 AND run.suite || '' = $2 AND run.revision = $3 AND run.result_code = 'success'
             ORDER BY run.start_time DESC, run.id DESC LIMIT 1"
        ));
        let query = query
            .bind(pair.codebase.as_str())
            .bind(pair.campaign.as_str())
            .bind(revision);
        let look = async {
            let row: Option<String> = query.fetch_optional(self.tables.link.pool()).await?;
            row.as_deref().map(runs::run).transpose()
        };
        Ok(self
            .tables
            .ask("look for the run of a revision", look)
            .await?)
    }

    async fn last_build_version(
        &self,
        codebase: &CodebaseName,
        distribution: &str,
    ) -> Result<Option<String>, RunStoreError> {
        // Put in order here, since the column is text where the type for versions is not installed.
        let query = sqlx::query_scalar(
            "SELECT DISTINCT build.version FROM run
             CROSS JOIN LATERAL (SELECT version::text, distribution FROM debian_build WHERE run_id = run.id OFFSET 0) AS build
             WHERE run.codebase = $1 AND build.distribution = $2",
        );
        let query = query.bind(codebase.as_str()).bind(distribution);
        let versions: Vec<String> = self
            .tables
            .ask(
                "look up the last version built",
                query.fetch_all(self.tables.link.pool()),
            )
            .await?;
        Ok(changes::highest(versions.iter().map(String::as_str)).map(str::to_owned))
    }

    async fn finished_since(&self, since: Time) -> Result<FinishedCounts, RunStoreError> {
        let query = sqlx::query_as(
            "SELECT result_code, count(*) FROM (
                 SELECT (SELECT result_code FROM run WHERE id = own.run_id) FROM runner_run AS own WHERE own.stored >= date_trunc('minute', $1::timestamp)
                 UNION ALL
                 SELECT result_code FROM run WHERE finish_time >= date_trunc('minute', $1::timestamp)
                     AND (SELECT run_id FROM runner_run WHERE run_id = run.id) IS NULL) AS finished
             GROUP BY result_code",
        );
        let query = query.bind(since.naive_utc());
        let rows: Vec<(String, i64)> = self
            .tables
            .ask(
                "count the finished runs",
                query.fetch_all(self.tables.link.pool()),
            )
            .await?;
        Ok(rows
            .into_iter()
            .map(|(code, count)| {
                (
                    ResultCode::new(code),
                    u64::try_from(count).unwrap_or_default(),
                )
            })
            .collect())
    }

    async fn health_check(&self) -> Result<(), RunStoreError> {
        // Asks for a connection and for a place to write to, without writing.
        let query = sqlx::query_scalar("SELECT pg_is_in_recovery()");
        let read_only: bool = self
            .tables
            .ask(
                "check the database",
                query.fetch_one(self.tables.link.pool()),
            )
            .await?;
        if read_only {
            Err(Fault::unavailable("check the database", "it is a read-only copy").into())
        } else {
            Ok(())
        }
    }
}
