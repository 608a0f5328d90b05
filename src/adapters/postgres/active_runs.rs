//! Claims: `runner_claim` has a row for each item that a worker holds.
//!
//! An item is taken by locking its row in `queue` (those that others are taking are skipped) and inserting its claim. A
//! claim that another committed between our snapshot and our lock makes the insert do nothing, and we take the next.

use super::{
    Abort, Postgres, Tables,
    claims_sql::{claim_sql, peek_sql},
    pool, queue, read,
    scan_cursor::{FIRST, Place},
};
use crate::{
    domain::{
        active_run::{ActiveRun, Claimant},
        codebase::Codebase,
        name::{CampaignName, CodebaseName, RunId},
        queue::{EnqueueRequest, QueueItem},
        time::Time,
    },
    ports::{
        ActiveRunStore, ActiveRunStoreError, Fault, HostBackoffs,
        active_runs::{ActiveRunUpdate, ClaimRequest, Claimed, Renewal},
        host_backoff::HostBackoff,
        queue_store::{ClaimFilter, NextItem},
    },
};
use async_trait::async_trait;
use chrono::NaiveDateTime;
use sqlx::{Row, postgres::PgRow};
use std::sync::{Mutex, PoisonError, atomic::Ordering};

/// A claim that was asked for, and what came of it.
pub(super) type Wanted = ClaimRequest;
pub(super) type Got = Result<Option<Claimed>, Fault>;

/// How often claims that others were faster with are tried again.
const TRIES: usize = 8;

type Args<'q> = sqlx::query::Query<'q, sqlx::Postgres, sqlx::postgres::PgArguments>;

fn bound<'q>(
    sql: &'static str,
    filter: &'q ClaimFilter,
    many: usize,
    now: Time,
    after: Place,
    alone: bool,
) -> Args<'q> {
    let (codebases, campaigns, sets) = queue::columns_of(filter.except.iter());
    sqlx::query(sql)
        .bind(i64::try_from(many).unwrap_or(i64::MAX))
        .bind(now.naive_utc())
        .bind(&filter.avoid_hosts)
        .bind(filter.campaign.as_ref().map(CampaignName::as_str))
        .bind(codebases)
        .bind(campaigns)
        .bind(sets)
        .bind(filter.codebase.as_ref().map(CodebaseName::as_str))
        .bind(after.0.as_str())
        .bind(after.1)
        .bind(after.2)
        .bind(alone)
}

/// The claim of a row of `runner_claim`.
fn active_run(row: &PgRow) -> sqlx::Result<ActiveRun> {
    let (item, claimant, vcs): (String, String, String) = (
        row.try_get("item")?,
        row.try_get("claimant")?,
        row.try_get("vcs")?,
    );
    let moment = |column: &str| {
        row.try_get::<NaiveDateTime, _>(column)
            .map(|time| time.and_utc())
    };
    Ok(ActiveRun {
        id: RunId::new(row.try_get::<String, _>("run_id")?),
        token: row.try_get("token")?,
        item: read(&item)?,
        claimant: read::<Claimant>(&claimant)?,
        start_time: moment("start_time")?,
        keepalive: moment("keepalive")?,
        vcs: read(&vcs)?,
        resume_from: row
            .try_get::<Option<String>, _>("resume_from")?
            .map(RunId::new),
        host: row.try_get("host")?,
        lease_until: row
            .try_get::<Option<NaiveDateTime>, _>("lease_until")?
            .map(|time| time.and_utc()),
        cancel: row.try_get("cancel")?,
        failures: u32::try_from(row.try_get::<i32, _>("failures")?).unwrap_or_default(),
    })
}

macro_rules! columns {
    () => {
        "run_id, token, item::text AS item, claimant::text AS claimant, start_time, keepalive, vcs::text AS vcs, resume_from, host, lease_until,
            cancel, failures"
    };
}

pub(super) fn json(value: &impl serde::Serialize) -> String {
    // These records have text keys only, so this cannot fail.
    serde_json::to_string(value).unwrap_or_default()
}

/// The run that an item was taken for, the item, and its codebase.
type TakenItem = (String, QueueItem, Codebase);

/// What a statement took, and for how many it could have.
#[derive(Default)]
struct Answered {
    taken: Vec<TakenItem>,
    picked: i64,
    asked: i64,
    /// There are limits, which only a statement that is alone may claim under.
    limited: bool,
}

impl Answered {
    fn read(rows: &[PgRow]) -> sqlx::Result<Self> {
        let mut answered = Self::default();
        for row in rows {
            (answered.picked, answered.asked, answered.limited) = (
                row.try_get("picked")?,
                row.try_get("asked")?,
                row.try_get("limited")?,
            );
            if let Some(run_id) = row.try_get::<Option<String>, _>("run_id")? {
                let (item, codebase): (String, String) =
                    (row.try_get("item")?, row.try_get("codebase")?);
                answered
                    .taken
                    .push((run_id, read(&item)?, read(&codebase)?));
            }
        }
        Ok(answered)
    }
}

/// What a statement took for whom.
struct Taken {
    got: Vec<(usize, Claimed)>,
    /// Another look may find more: others were faster with some of the items.
    beaten: bool,
}

/// The statement that takes items for requests of one filter.
fn claiming<'q>(wanted: &'q [Wanted], first: &'q Wanted, after: Place, alone: bool) -> Args<'q> {
    let column = |of: fn(&Wanted) -> String| wanted.iter().map(of).collect::<Vec<_>>();
    bound(
        claim_sql(first.filter.codebase.is_some()),
        &first.filter,
        wanted.len(),
        first.now,
        after,
        alone,
    )
    .bind(column(|request| request.run_id.to_string()))
    .bind(column(|request| request.token.clone()))
    .bind(column(|request| json(&request.claimant)))
    .bind(
        wanted
            .iter()
            .map(|request| request.now.naive_utc())
            .collect::<Vec<_>>(),
    )
    .bind(
        wanted
            .iter()
            .map(|request| request.claimant.worker.clone())
            .collect::<Vec<_>>(),
    )
    .bind(
        wanted
            .iter()
            .map(|request| request.lease.map(|lease| (request.now + lease).naive_utc()))
            .collect::<Vec<_>>(),
    )
}

/// What claims under limits hold, so that two of them never see the same room.
const LIMITS_LOCK: i64 = 0x6a72_756e_6e65_7201;

impl Tables {
    /// Carries out a claiming statement; under limits, alone among all processes.
    async fn claim_under(
        &self,
        wanted: &[Wanted],
        first: &Wanted,
        after: Place,
    ) -> Result<Answered, Fault> {
        if !self.limited.load(Ordering::Relaxed) {
            let look = async {
                Answered::read(
                    &claiming(wanted, first, after, false)
                        .fetch_all(self.link.pool())
                        .await?,
                )
            };
            let answered = self.ask("claim items", look).await?;
            if !answered.limited {
                return Ok(answered);
            }
            self.limited.store(true, Ordering::Relaxed);
        }
        let claim = self.transaction::<_, Fault>("claim items under limits", |connection| {
            let (wanted, first) = (wanted.to_vec(), first.clone());
            Box::pin(async move {
                sqlx::query("SELECT pg_advisory_xact_lock($1)")
                    .bind(LIMITS_LOCK)
                    .execute(&mut *connection)
                    .await?;
                Ok(Answered::read(
                    &claiming(&wanted, &first, after, true)
                        .fetch_all(connection)
                        .await?,
                )?)
            })
        });
        let answered = claim.await?;
        self.limited.store(answered.limited, Ordering::Relaxed);
        Ok(answered)
    }

    /// Takes items for requests of one filter, in their order.
    async fn take(&self, wanted: &[Wanted]) -> Result<Taken, Fault> {
        let Some(first) = wanted.first() else {
            return Ok(Taken {
                got: vec![],
                beaten: false,
            });
        };
        let (generation, after) = if first.filter == ClaimFilter::default() {
            self.frontier.start()
        } else {
            (0, FIRST)
        };
        let Answered {
            taken,
            picked,
            asked,
            ..
        } = self.claim_under(wanted, first, after).await?;
        let mut got = vec![];
        for (run_id, item, codebase) in taken {
            let place = wanted
                .iter()
                .position(|request| request.run_id.as_str() == run_id);
            if let Some((place, request)) =
                place.and_then(|place| Some((place, wanted.get(place)?)))
            {
                let run = ActiveRun {
                    host: codebase.host().map(str::to_owned),
                    lease_until: request.lease.map(|lease| request.now + lease),
                    ..ActiveRun::new(
                        request.run_id.clone(),
                        request.token.clone(),
                        item,
                        request.claimant.clone(),
                        request.now,
                    )
                };
                got.push((place, Claimed { run, codebase }));
            }
        }
        let last = got
            .iter()
            .map(|(_, claimed)| claimed.run.item.order())
            .max();
        if let Some(last) = last.filter(|_| generation > 0) {
            self.frontier.move_to(generation, last);
        }
        let count = i64::try_from(got.len()).unwrap_or(i64::MAX);
        let beaten = count < picked.min(asked);
        if count == asked || after == FIRST {
            return Ok(Taken { got, beaten });
        }
        // Too little was found behind the frontier: what is before it is looked at too.
        self.frontier.opened(None);
        Ok(Taken { got, beaten: true })
    }

    /// The same, until each has an item or there is none left.
    async fn claim_alike(&self, wanted: &[Wanted]) -> Result<Vec<Option<Claimed>>, Fault> {
        let mut answers: Vec<Option<Claimed>> = vec![None; wanted.len()];
        for _ in 0..TRIES {
            let open: Vec<usize> = answers
                .iter()
                .enumerate()
                .filter(|(_, answer)| answer.is_none())
                .map(|(place, _)| place)
                .collect();
            let asked: Vec<Wanted> = open
                .iter()
                .filter_map(|place| wanted.get(*place).cloned())
                .collect();
            let taken = match self.take(&asked).await {
                Ok(taken) => taken,
                Err(fault) => {
                    // What failed for good took nothing.
                    let unsure = wanted.iter().filter(|_| fault.is_unavailable());
                    self.orphans
                        .add(unsure.map(|request| (request.run_id.clone(), request.token.clone())));
                    return Err(fault);
                }
            };
            for (place, claimed) in taken.got {
                if let Some(answer) = open.get(place).and_then(|place| answers.get_mut(*place)) {
                    *answer = Some(claimed);
                }
            }
            if !taken.beaten {
                break;
            }
        }
        Ok(answers)
    }

    pub(super) async fn claim_all(self, batch: Vec<Wanted>) -> Vec<Got> {
        if !self.link.answers() {
            return batch
                .iter()
                .map(|_| Err(Fault::unavailable("claim items", pool::DOWN)))
                .collect();
        }
        self.release_orphans().await;
        let seen: Vec<_> = batch
            .iter()
            .filter_map(|request| Some((request.claimant.worker.clone()?, request.now)))
            .collect();
        let mut answers: Vec<Option<Got>> = batch.iter().map(|_| None).collect();
        // Mostly all are alike; a filter of its own costs a statement of its own.
        while let Some(first) = answers.iter().position(Option::is_none) {
            let filter = batch
                .get(first)
                .map(|request| request.filter.clone())
                .unwrap_or_default();
            let alike: Vec<usize> = (first..batch.len())
                .filter(|place| {
                    batch
                        .get(*place)
                        .is_some_and(|request| request.filter == filter)
                })
                .collect();
            let wanted: Vec<Wanted> = alike
                .iter()
                .filter_map(|place| batch.get(*place).cloned())
                .collect();
            let got: Vec<Got> = match self.claim_alike(&wanted).await {
                Ok(got) => got.into_iter().map(Ok).collect(),
                Err(fault) => wanted.iter().map(|_| Err(again(&fault))).collect(),
            };
            for (place, got) in alike.into_iter().zip(got) {
                if let Some(answer) = answers.get_mut(place) {
                    *answer = Some(got);
                }
            }
        }
        let answers: Vec<Got> = answers
            .into_iter()
            .map(|answer| answer.unwrap_or(Ok(None)))
            .collect();
        if answers.iter().any(|answer| matches!(answer, Ok(Some(_)))) {
            self.note_seen(seen).await;
        }
        answers
    }

    /// Lets go what was claimed by statements whose answer was lost: nobody knows of these claims.
    async fn release_orphans(&self) {
        if !self.link.is_settled() {
            return;
        }
        for (id, token) in self.orphans.take() {
            match self.release(&id, &token, None).await {
                Ok(()) | Err(ActiveRunStoreError::ClaimLost(_)) => {}
                Err(ActiveRunStoreError::Fault(_)) => self.orphans.add([(id, token)]),
            }
        }
    }

    /// Lets an item go; a wish that waited for it is queued.
    async fn release(
        &self,
        id: &RunId,
        token: &str,
        now: Option<Time>,
    ) -> Result<(), ActiveRunStoreError> {
        let released = self.transaction("release a claim", |connection| {
            let (id, token) = (id.clone(), token.to_owned());
            Box::pin(async move {
                let queue_id: Option<i64> = sqlx::query_scalar("SELECT queue_id FROM runner_claim WHERE run_id = $1 AND token = $2")
                    .bind(id.as_str())
                    .bind(&token)
                    .fetch_optional(&mut *connection)
                    .await?;
                let Some(queue_id) = queue_id else { return Err(Abort::Refused(ActiveRunStoreError::ClaimLost(id))) };
                sqlx::query("SELECT FROM queue WHERE id = $1 FOR UPDATE").bind(queue_id).execute(&mut *connection).await?;
                let wish: Option<Option<String>> =
                    sqlx::query_scalar("DELETE FROM runner_claim WHERE run_id = $1 AND token = $2 RETURNING wish::text")
                        .bind(id.as_str())
                        .bind(&token)
                        .fetch_optional(&mut *connection)
                        .await?;
                let Some(wish) = wish else { return Err(Abort::Refused(ActiveRunStoreError::ClaimLost(id))) };
                if let (Some(wish), Some(now)) = (wish, now) {
                    let queued = queue::enqueue(connection, vec![read::<EnqueueRequest>(&wish)?], now).await;
                    queued.map_err(|abort| abort.into_other(|error| Fault::backend("queue what waited", error).into()))?;
                }
                Ok(())
            })
        });
        released.await?;
        self.frontier.opened(None);
        self.notify_available(1);
        Ok(())
    }
}

/// The same failure, for another who waited for the same statement.
pub(super) fn again(fault: &Fault) -> Fault {
    let why =
        std::error::Error::source(fault).map_or_else(|| fault.to_string(), ToString::to_string);
    match fault {
        Fault::Unavailable { action, .. } => Fault::unavailable(action, why),
        Fault::Backend { action, .. } => Fault::backend(action, why),
    }
}

/// Claims that may be in the database though nobody was told of them.
#[derive(Debug, Default)]
pub(super) struct Orphans(Mutex<Vec<(RunId, String)>>);

impl Orphans {
    fn add(&self, claims: impl IntoIterator<Item = (RunId, String)>) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(claims);
    }

    fn take(&self) -> Vec<(RunId, String)> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Postgres {
    pub(super) async fn peek_item(
        &self,
        filter: &ClaimFilter,
        now: Time,
    ) -> Result<Option<NextItem>, Fault> {
        let tables = &self.tables;
        let look = async {
            let query = bound(
                peek_sql(filter.codebase.is_some()),
                filter,
                1,
                now,
                FIRST,
                true,
            );
            let Some(row) = query.fetch_optional(tables.link.pool()).await? else {
                return Ok(None);
            };
            let (item, codebase): (String, String) =
                (row.try_get("item")?, row.try_get("codebase")?);
            Ok(Some(NextItem {
                item: read(&item)?,
                codebase: read(&codebase)?,
            }))
        };
        tables.ask("look for the next item", look).await
    }

    /// Changes a claim that is held with this token.
    async fn change(
        &self,
        action: &'static str,
        id: &RunId,
        change: Args<'_>,
    ) -> Result<(), ActiveRunStoreError> {
        let changed = self
            .tables
            .ask(action, change.execute(self.tables.link.pool()))
            .await?;
        if changed.rows_affected() == 0 {
            Err(ActiveRunStoreError::ClaimLost(id.clone()))
        } else {
            Ok(())
        }
    }
}

#[async_trait]
impl ActiveRunStore for Postgres {
    async fn claim(&self, request: ClaimRequest) -> Result<Option<Claimed>, ActiveRunStoreError> {
        Ok(self.claims.ask("claim an item", request).await??)
    }

    async fn update(
        &self,
        id: &RunId,
        token: &str,
        update: ActiveRunUpdate,
    ) -> Result<(), ActiveRunStoreError> {
        match update {
            ActiveRunUpdate::Probed { vcs, resume_from } => {
                let statement = sqlx::query(
                    "UPDATE runner_claim SET vcs = $3::jsonb, resume_from = $4
                     WHERE run_id = $1 AND token = $2",
                )
                .bind(id.as_str())
                .bind(token)
                .bind(json(&vcs))
                .bind(resume_from.map(|run| run.to_string()));
                self.change("store what a probe found", id, statement).await
            }
            ActiveRunUpdate::Pinged { failures } => {
                let statement = sqlx::query(
                    "UPDATE runner_claim SET failures = $3 WHERE run_id = $1 AND token = $2",
                )
                .bind(id.as_str())
                .bind(token)
                .bind(i32::try_from(failures).unwrap_or(i32::MAX));
                self.change("store what a ping said", id, statement).await
            }
        }
    }

    async fn get(&self, id: &RunId) -> Result<Option<ActiveRun>, ActiveRunStoreError> {
        let query = sqlx::query(concat!(
            "SELECT ",
            columns!(),
            " FROM runner_claim WHERE run_id = $1"
        ))
        .bind(id.as_str());
        let look = async {
            query
                .fetch_optional(self.tables.link.pool())
                .await?
                .as_ref()
                .map(active_run)
                .transpose()
        };
        Ok(self.tables.ask("look up a claim", look).await?)
    }

    async fn list(&self) -> Result<Vec<ActiveRun>, ActiveRunStoreError> {
        let query = sqlx::query(concat!(
            "SELECT ",
            columns!(),
            " FROM runner_claim ORDER BY start_time, run_id"
        ));
        let look = async {
            query
                .fetch_all(self.tables.link.pool())
                .await?
                .iter()
                .map(active_run)
                .collect()
        };
        Ok(self.tables.ask("list the claims", look).await?)
    }

    async fn renew(
        &self,
        id: &RunId,
        token: &str,
        renewal: Renewal,
    ) -> Result<ActiveRun, ActiveRunStoreError> {
        // As `ActiveRun::renew` does it.
        let query = sqlx::query(concat!(
            "UPDATE runner_claim SET keepalive = greatest(keepalive, $3), failures = CASE WHEN $3 >= keepalive THEN 0 ELSE failures END,
                 lease_until = CASE WHEN lease_until IS NOT NULL THEN greatest(lease_until, $4) END
             WHERE run_id = $1 AND token = $2 RETURNING ",
            columns!()
        ));
        let query = query
            .bind(id.as_str())
            .bind(token)
            .bind(renewal.now.naive_utc())
            .bind((renewal.now + renewal.lease).naive_utc());
        let change = async {
            query
                .fetch_optional(self.tables.link.pool())
                .await?
                .as_ref()
                .map(active_run)
                .transpose()
        };
        let run = self
            .tables
            .ask("renew a claim", change)
            .await?
            .ok_or_else(|| ActiveRunStoreError::ClaimLost(id.clone()))?;
        self.tables
            .note_seen(
                run.claimant
                    .worker
                    .clone()
                    .map(|worker| (worker, run.keepalive)),
            )
            .await;
        Ok(run)
    }

    async fn cancel(
        &self,
        id: &RunId,
        reason: &str,
    ) -> Result<Option<ActiveRun>, ActiveRunStoreError> {
        let query = sqlx::query(concat!(
            "UPDATE runner_claim SET cancel = coalesce(cancel, $2) WHERE run_id = $1 RETURNING ",
            columns!()
        ));
        let query = query.bind(id.as_str()).bind(reason);
        let change = async {
            query
                .fetch_optional(self.tables.link.pool())
                .await?
                .as_ref()
                .map(active_run)
                .transpose()
        };
        Ok(self.tables.ask("cancel a claim", change).await?)
    }

    async fn release(&self, id: &RunId, token: &str, now: Time) -> Result<(), ActiveRunStoreError> {
        self.tables.release(id, token, Some(now)).await
    }

    async fn adopt(&self, run: ActiveRun) -> Result<bool, ActiveRunStoreError> {
        let insert = sqlx::query(
            "INSERT INTO runner_claim (run_id, queue_id, token, claimant, item, start_time, keepalive, vcs, resume_from, host, lease_until, cancel, failures)
             SELECT $1, $2, $3, $4::jsonb, $5::jsonb, $6, $7, $8::jsonb, $9, $10, $11, $12, $13 WHERE NOT EXISTS (SELECT FROM run WHERE id = $1)
             ON CONFLICT DO NOTHING",
        )
        .bind(run.id.as_str())
        .bind(run.item.id)
        .bind(&run.token)
        .bind(json(&run.claimant))
        .bind(json(&run.item))
        .bind(run.start_time.naive_utc())
        .bind(run.keepalive.naive_utc())
        .bind(json(&run.vcs))
        .bind(run.resume_from.as_ref().map(RunId::as_str))
        .bind(run.host)
        .bind(run.lease_until.map(|until| until.naive_utc()))
        .bind(run.cancel)
        .bind(i32::try_from(run.failures).unwrap_or(i32::MAX));
        let done = self
            .tables
            .ask("take over a claim", insert.execute(self.tables.link.pool()))
            .await?;
        Ok(done.rows_affected() > 0)
    }
}

#[async_trait]
impl HostBackoffs for Postgres {
    async fn back_off_host(&self, limit: HostBackoff) -> Result<(), Fault> {
        let write = sqlx::query(
            "INSERT INTO runner_host_limit AS known (host, until) VALUES ($1, $2)
             ON CONFLICT (host) DO UPDATE SET until = greatest(known.until, excluded.until)",
        )
        .bind(limit.host)
        .bind(limit.until.naive_utc());
        self.tables
            .ask("limit a host", write.execute(self.tables.link.pool()))
            .await?;
        Ok(())
    }

    async fn backed_off_hosts(&self, now: Time) -> Result<Vec<HostBackoff>, Fault> {
        let query = sqlx::query_as(
            "SELECT host, until FROM runner_host_limit WHERE until > $1 ORDER BY host",
        )
        .bind(now.naive_utc());
        let rows: Vec<(String, NaiveDateTime)> = self
            .tables
            .ask(
                "list limited hosts",
                query.fetch_all(self.tables.link.pool()),
            )
            .await?;
        Ok(rows
            .into_iter()
            .map(|(host, until)| HostBackoff {
                host,
                until: until.and_utc(),
            })
            .collect())
    }
}
