//! Claims that wait at the same moment are served by one statement.

use super::orphans::Orphan;
use crate::{
    adapters::postgres::{
        Tables,
        error::duplicate,
        next_items::{self, Scan, Statement},
        pool::UNREACHABLE,
        records::{read, write},
        scan_cursor::{QUEUE_START, QueuePosition},
    },
    domain::{active_run::ActiveRun, codebase::Codebase, queue::QueueItem},
    ports::{
        Fault,
        active_runs::{ClaimRequest, Claimed},
        queue_store::ClaimFilter,
    },
};
use sqlx::{Row, postgres::PgRow};
use std::sync::atomic::Ordering;

/// What became of a request.
pub(in crate::adapters::postgres) type ClaimOutcome = Result<Option<Claimed>, Fault>;

/// How often a batch is attempted while others claim the items first.
const MAX_ATTEMPTS: usize = 8;

/// The key of the advisory lock that claims under limits hold, so that two of them never see the
/// same capacity.
const LIMITS_LOCK: i64 = 0x6a72_756e_6e65_7201;

/// The run that an item was claimed for, the item, and its codebase.
type ClaimedRow = (String, QueueItem, Codebase);

/// What a statement claimed, and how much it could have.
#[derive(Default)]
struct StatementResult {
    claimed: Vec<ClaimedRow>,
    /// Number of items that were free.
    candidates: i64,
    /// Number of requests whose worker is not paused.
    requests: i64,
    /// Whether there are limits, which only a statement that runs alone may claim under.
    limited: bool,
}

impl StatementResult {
    fn read(rows: &[PgRow]) -> sqlx::Result<Self> {
        let mut result = Self::default();
        for row in rows {
            result.candidates = row.try_get("candidates")?;
            result.requests = row.try_get("requests")?;
            result.limited = row.try_get("limited")?;
            if let Some(run_id) = row.try_get::<Option<String>, _>("run_id")? {
                let (item, codebase): (String, String) =
                    (row.try_get("item")?, row.try_get("codebase")?);
                result
                    .claimed
                    .push((run_id, read(&item)?, read(&codebase)?));
            }
        }
        Ok(result)
    }
}

/// What an attempt claimed.
#[derive(Default)]
struct BatchResult {
    /// The claims, with the index of the request of each.
    claimed: Vec<(usize, Claimed)>,
    /// Whether another attempt may claim more, since others claimed some of the items first.
    contended: bool,
}

/// Returns the statement that claims items for requests of one filter.
fn claim_statement<'q>(
    requests: &'q [ClaimRequest],
    first: &'q ClaimRequest,
    after: QueuePosition,
    exclusive: bool,
) -> Statement<'q> {
    fn column<T>(requests: &[ClaimRequest], of: impl Fn(&ClaimRequest) -> T) -> Vec<T> {
        requests.iter().map(of).collect()
    }
    let scan = Scan {
        limit: requests.len(),
        now: first.now,
        after,
        exclusive,
    };
    next_items::claim(&first.filter, scan)
        .bind(column(requests, |request| request.run_id.to_string()))
        .bind(column(requests, |request| request.token.clone()))
        .bind(column(requests, |request| write(&request.claimant)))
        .bind(column(requests, |request| request.now.naive_utc()))
        .bind(column(requests, |request| request.claimant.worker.clone()))
        .bind(column(requests, |request| {
            request.lease.map(|lease| (request.now + lease).naive_utc())
        }))
        .bind(column(requests, |request| request.claimant.counted_name()))
}

/// Finds the request that a row was claimed for.
fn assign(
    requests: &[ClaimRequest],
    (run_id, item, codebase): ClaimedRow,
) -> Option<(usize, Claimed)> {
    let index = requests
        .iter()
        .position(|request| request.run_id.as_str() == run_id)?;
    let request = requests.get(index)?;
    let run = ActiveRun {
        host: codebase.host(),
        lease_until: request.lease.map(|lease| request.now + lease),
        ..ActiveRun::new(
            request.run_id.clone(),
            request.token.clone(),
            item,
            request.claimant.clone(),
            request.now,
        )
    };
    Some((index, Claimed { run, codebase }))
}

impl Tables {
    /// Runs a claiming statement; under limits, alone among all processes.
    async fn run_claim(
        &self,
        requests: &[ClaimRequest],
        first: &ClaimRequest,
        after: QueuePosition,
    ) -> Result<StatementResult, Fault> {
        if !self.limited.load(Ordering::Relaxed) {
            // The statement claims nothing if there are limits by now, and says so.
            let claim = async {
                let statement = claim_statement(requests, first, after, false);
                StatementResult::read(&statement.fetch_all(self.connections()).await?)
            };
            let result = self.run("claim items", claim).await?;
            if !result.limited {
                return Ok(result);
            }
            self.limited.store(true, Ordering::Relaxed);
        }
        let claim = self.transaction::<_, Fault>("claim items under limits", |connection| {
            let (requests, first) = (requests.to_vec(), first.clone());
            Box::pin(async move {
                // The lock is a statement of its own: the next one's snapshot must see what the
                // previous holder of the lock claimed.
                sqlx::query("SELECT pg_advisory_xact_lock($1)")
                    .bind(LIMITS_LOCK)
                    .execute(&mut *connection)
                    .await?;
                let statement = claim_statement(&requests, &first, after, true);
                Ok(StatementResult::read(
                    &statement.fetch_all(connection).await?,
                )?)
            })
        });
        let result = claim.await?;
        self.limited.store(result.limited, Ordering::Relaxed);
        Ok(result)
    }

    /// Claims items for requests of one filter, in their order.
    async fn claim_once(&self, requests: &[ClaimRequest]) -> Result<BatchResult, Fault> {
        let Some(first) = requests.first() else {
            return Ok(BatchResult::default());
        };
        // The cursor knows only what is held, so it cannot skip items for other filters.
        let (generation, after) = if first.filter == ClaimFilter::default() {
            self.cursor.start()
        } else {
            (0, QUEUE_START)
        };
        let result = self.run_claim(requests, first, after).await?;
        let claimed: Vec<(usize, Claimed)> = result
            .claimed
            .into_iter()
            .filter_map(|row| assign(requests, row))
            .collect();
        let last = claimed
            .iter()
            .map(|(_, claimed)| claimed.run.item.order())
            .max();
        if let Some(last) = last.filter(|_| generation > 0) {
            self.cursor.advance(generation, last);
        }
        let count = i64::try_from(claimed.len()).unwrap_or(i64::MAX);
        let contended = count < result.candidates.min(result.requests);
        if count == result.requests || after == QUEUE_START {
            return Ok(BatchResult { claimed, contended });
        }
        // Too few items were found after the cursor: the next attempt looks before it too.
        self.cursor.item_available(None);
        Ok(BatchResult {
            claimed,
            contended: true,
        })
    }

    /// Claims items for requests of one filter, until each has one or none is left.
    async fn claim_alike(&self, requests: &[ClaimRequest]) -> Result<Vec<Option<Claimed>>, Fault> {
        let mut outcomes: Vec<Option<Claimed>> = vec![None; requests.len()];
        for _ in 0..MAX_ATTEMPTS {
            let (open, remaining): (Vec<usize>, Vec<ClaimRequest>) = requests
                .iter()
                .enumerate()
                .filter(|(index, _)| outcomes.get(*index).is_some_and(Option::is_none))
                .map(|(index, request)| (index, request.clone()))
                .unzip();
            let result = match self.claim_once(&remaining).await {
                Ok(result) => result,
                Err(fault) => {
                    // A statement whose reply was lost may have claimed items for any of them. One
                    // that failed for good claimed nothing.
                    let unsure = requests.iter().filter(|_| fault.is_unavailable());
                    self.orphans.add(unsure.map(|request| Orphan {
                        id: request.run_id.clone(),
                        token: request.token.clone(),
                        claimed: request.now,
                    }));
                    return Err(fault);
                }
            };
            for (index, claimed) in result.claimed {
                let index = open.get(index);
                if let Some(outcome) = index.and_then(|index| outcomes.get_mut(*index)) {
                    *outcome = Some(claimed);
                }
            }
            if !result.contended {
                break;
            }
        }
        Ok(outcomes)
    }

    /// Claims items for a batch; returns the outcomes in its order.
    pub(in crate::adapters::postgres) async fn claim_all(
        self,
        batch: Vec<ClaimRequest>,
    ) -> Vec<ClaimOutcome> {
        if !self.pool.is_reachable() {
            let unreachable = |_| Err(Fault::unavailable("claim items", UNREACHABLE));
            return batch.iter().map(unreachable).collect();
        }
        self.release_orphans().await;
        let mut outcomes: Vec<Option<ClaimOutcome>> = batch.iter().map(|_| None).collect();
        // Mostly all filters are the same; each other one costs a statement of its own.
        while let Some(first) = outcomes.iter().position(Option::is_none) {
            let Some(filter) = batch.get(first).map(|request| &request.filter) else {
                break;
            };
            let (indexes, alike): (Vec<usize>, Vec<ClaimRequest>) = batch
                .iter()
                .enumerate()
                .skip(first)
                .filter(|(_, request)| request.filter == *filter)
                .map(|(index, request)| (index, request.clone()))
                .unzip();
            let claimed: Vec<ClaimOutcome> = match self.claim_alike(&alike).await {
                Ok(claimed) => claimed.into_iter().map(Ok).collect(),
                Err(fault) => alike.iter().map(|_| Err(duplicate(&fault))).collect(),
            };
            for (index, claimed) in indexes.into_iter().zip(claimed) {
                if let Some(outcome) = outcomes.get_mut(index) {
                    *outcome = Some(claimed);
                }
            }
        }
        let outcomes: Vec<ClaimOutcome> = outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or(Ok(None)))
            .collect();
        if outcomes
            .iter()
            .any(|outcome| matches!(outcome, Ok(Some(_))))
        {
            let seen = batch
                .iter()
                .filter_map(|request| Some((request.claimant.worker.clone()?, request.now)));
            self.record_last_seen(seen).await;
        }
        outcomes
    }
}
