//! The stores on Postgres: the tables of a Janitor deployment, with the runner's own beside them.
//!
//! There is one file or folder for each port. Statements of more than a few lines are in `sql/`,
//! so that they can be pasted into psql and explained. `error.rs`, `records.rs`, `next_items.rs`
//! and `scan_cursor.rs` have what several of the ports need.
//!
//! Claims and results that wait at the same moment share a transaction (`batch.rs`); `pool.rs`
//! finds out when the server does not answer. Rows are read as JSON made by the server, so that
//! the domain's own records read them; lists are written with arrays or one JSON document, so that
//! the number of statements does not depend on their length.
//!
//! Plans are kept (`pool.rs` says why), and the planner knows nothing of a table that was empty a
//! moment ago. So rows are looked up by arrays of keys, by scalar subqueries, or by
//! `LATERAL (… OFFSET 0)`, which is always one index lookup for each, and never joined, which may
//! become a scan of one table for each row of the other. A condition such as `suite || '' = $2` or
//! an order such as `(start_time, id)` keeps the planner from an index that would do worse.
//!
//! Locks are taken in one order, or two runners would wait for each other: rows of `queue` by id,
//! then rows of `runner_active_run` by queue id, then all else.

mod active_runs;
mod audit_log;
mod batch;
mod catalog;
mod credentials;
mod error;
mod host_backoff;
mod last_seen;
mod leadership;
mod live_logs;
mod next_items;
mod notifier;
mod notify;
mod outbox;
mod parking;
mod pauses;
mod pool;
mod queue;
mod records;
mod run_history;
mod runs;
mod scan_cursor;
mod schedule;
pub mod schema;
#[cfg(test)]
mod sql_tests;

pub use pool::PostgresSettings;

use super::support::availability::Availability;
use crate::{
    metrics::Metrics,
    ports::{Fault, active_runs::ClaimRequest, run_recorder::NewRun},
};
use batch::Batcher;
use error::Abort;
use futures::future::BoxFuture;
use pool::MonitoredPool;
use sqlx::{PgConnection, PgPool};
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

/// Batches of claims, and of results, that are under way at the same time.
const WORKERS: usize = 2;
/// Maximum number of claims that share a transaction.
const CLAIM_BATCH_SIZE: usize = 64;
/// Maximum number of results that share a transaction.
const RECORD_BATCH_SIZE: usize = 64;

/// The stores on Postgres; clones share the connections.
#[derive(Clone)]
pub struct Postgres {
    tables: Tables,
    claims: Arc<Batcher<ClaimRequest, active_runs::ClaimOutcome>>,
    recordings: Arc<Batcher<NewRun, runs::RecordOutcome>>,
    _notify_bridge: Arc<notify::NotifyBridge>,
}

/// The connections, and what the process knows beside the tables. Batches and tasks have it too.
#[derive(Clone)]
struct Tables {
    pool: Arc<MonitoredPool>,
    last_seen: Arc<last_seen::LastSeenThrottle>,
    orphans: Arc<active_runs::Orphans>,
    cursor: Arc<scan_cursor::ScanCursor>,
    /// Whether there were limits when this process last claimed.
    limited: Arc<AtomicBool>,
    /// Items that became available, for those who wait in this process.
    availability: Arc<Availability>,
    /// Items that became available, for other processes to be notified of.
    to_notify: Arc<Availability>,
    /// Whether triggers of our own migration keep `last_run` up to date.
    has_our_triggers: bool,
    metrics: Arc<Metrics>,
}

impl Tables {
    /// Returns the connections, for statements that need no transaction.
    fn connections(&self) -> &PgPool {
        self.pool.connections()
    }

    /// Runs statements that need no transaction.
    async fn run<T>(
        &self,
        action: &'static str,
        work: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, Fault> {
        let started = Instant::now();
        let done = self.pool.run(action, work).await;
        self.metrics
            .operated("postgres", action, done.is_ok(), started.elapsed());
        done
    }

    /// Reads a list or a figure, on connections of their own.
    async fn read<T>(
        &self,
        action: &'static str,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>>,
    ) -> Result<T, Fault> {
        let started = Instant::now();
        let done = self.pool.read(action, work).await;
        self.metrics
            .operated("postgres", action, done.is_ok(), started.elapsed());
        done
    }

    /// Runs a transaction: all of it or nothing.
    async fn transaction<T, E: From<Fault>>(
        &self,
        action: &'static str,
        body: impl for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Abort<E>>>,
    ) -> Result<T, E> {
        let started = Instant::now();
        let done = self.pool.transaction(action, body).await;
        self.metrics
            .operated("postgres", action, done.is_ok(), started.elapsed());
        done
    }
}

/// Fails unless the tables are those of this version.
async fn check_schema(action: &'static str, pool: &MonitoredPool) -> Result<(), Fault> {
    let inspect = async { schema::inspect(&mut *pool.connections().acquire().await?).await };
    let plan = pool.run(action, inspect).await?;
    if plan.is_done() {
        return Ok(());
    }
    let reasons = if plan.problems.is_empty() {
        plan.steps
    } else {
        plan.problems
    };
    let advice = "the tables are not those of this version; `janitor-runner migrate --dry-run` \
        lists what is missing, `janitor-runner migrate` adds it";
    Err(Fault::backend(
        action,
        format!("{advice} ({})", reasons.join("; ")),
    ))
}

impl Postgres {
    /// Connects to a database whose tables are there and of this version.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the database cannot be reached, or its tables are missing or of another
    /// version.
    pub async fn open(settings: &PostgresSettings, metrics: Arc<Metrics>) -> Result<Self, Fault> {
        let action = "open the database";
        let pool = Arc::new(MonitoredPool::open(settings).await?);
        check_schema(action, &pool).await?;
        let query = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_trigger
             WHERE tgname = 'last_run_insert' AND tgrelid = 'run'::regclass)",
        );
        let has_our_triggers = pool
            .run(action, query.fetch_one(pool.connections()))
            .await?;
        let tables = Tables {
            pool,
            last_seen: Arc::default(),
            orphans: Arc::default(),
            cursor: Arc::default(),
            limited: Arc::default(),
            availability: Arc::default(),
            to_notify: Arc::default(),
            has_our_triggers,
            metrics,
        };
        let notify_bridge = notify::NotifyBridge::start(&tables, pool::options(settings)?);
        let (claiming, recording) = (tables.clone(), tables.clone());
        Ok(Self {
            claims: Arc::new(Batcher::start(WORKERS, CLAIM_BATCH_SIZE, move |batch| {
                Box::pin(claiming.clone().claim_all(batch))
            })),
            recordings: Arc::new(Batcher::start(WORKERS, RECORD_BATCH_SIZE, move |batch| {
                Box::pin(recording.clone().record_all(batch))
            })),
            tables,
            _notify_bridge: Arc::new(notify_bridge),
        })
    }
}
