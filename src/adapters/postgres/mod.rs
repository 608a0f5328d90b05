//! The stores on Postgres: the tables of a Janitor deployment, with the runner's own beside them.
//!
//! Claims and results that wait at the same moment go into one transaction (`batch.rs`); `link.rs` finds out when the
//! server does not answer. Rows are read as JSON made by the server, so that the domain's own records read them; lists
//! are written with arrays or one JSON document, so that the number of statements does not depend on their length.
//!
//! Plans are kept (`link.rs` says why), and the planner knows nothing of a table that was empty a moment ago; so rows are
//! looked up by arrays of keys, by scalar subqueries, or by `LATERAL (… OFFSET 0)`, which is always one look into an index
//! for each, and never joined, which may become a scan of one table for each row of the other.
//!
//! Locks are taken in one order, or two runners would wait for each other: rows of `queue` by id, then rows of
//! `runner_claim` by queue id, then all else.

mod active_runs;
mod batch;
mod catalog;
mod claims_sql;
mod credentials;
mod last_seen;
mod live_logs;
mod outbox;
mod pauses;
mod pool;
mod queue;
mod results;
mod runs;
mod scan_cursor;
mod schedule;
pub mod schema;

pub use pool::PostgresSettings;

use super::support::availability::Availability;
use crate::{metrics::Metrics, ports::Fault};
use batch::Batcher;
use futures::future::BoxFuture;
use pool::Link;
use serde::de::DeserializeOwned;
use sqlx::{PgConnection, error::DatabaseError};
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

/// Batches of claims, and of results, that are under way at the same time at the most.
const LANES: usize = 2;
/// Claims, and results, that share a transaction at the most.
const CLAIMS_AT_ONCE: usize = 64;
const RESULTS_AT_ONCE: usize = 64;

/// The stores on Postgres; clones share the connections.
#[derive(Clone)]
pub struct Postgres {
    tables: Tables,
    claims: Arc<Batcher<active_runs::Wanted, active_runs::Got>>,
    results: Arc<Batcher<results::New, results::Done>>,
    _telling: Arc<pauses::Telling>,
}

/// What the batches work with too.
#[derive(Clone)]
struct Tables {
    link: Arc<Link>,
    seen: Arc<last_seen::Seen>,
    orphans: Arc<active_runs::Orphans>,
    frontier: Arc<scan_cursor::Frontier>,
    /// There were limits when this process last claimed.
    limited: Arc<AtomicBool>,
    /// Items that were opened, for this process and to be told to others.
    availability: Arc<Availability>,
    to_tell: Arc<Availability>,
    /// `last_run` is kept by triggers of our own migration.
    has_our_triggers: bool,
    metrics: Arc<Metrics>,
}

/// Why a transaction ends without effect.
enum Abort<E> {
    /// The database refused a statement.
    Sql(sqlx::Error),
    /// The port's own case.
    Refused(E),
    /// Somebody else changed the same rows meanwhile.
    Again,
}

impl<E> Abort<E> {
    /// The same for a transaction of another port.
    fn into_other<F>(self, refused: impl FnOnce(E) -> F) -> Abort<F> {
        match self {
            Self::Sql(error) => Abort::Sql(error),
            Self::Refused(why) => Abort::Refused(refused(why)),
            Self::Again => Abort::Again,
        }
    }
}

impl<E> From<sqlx::Error> for Abort<E> {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// Whether a repeat may cure it.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => {
            // Connection lost, too little of something, shutting down or starting, cancelled by a timeout, lost a race.
            let code = error.code().unwrap_or_default();
            ["08", "53", "57", "58", "40"]
                .iter()
                .any(|class| code.starts_with(class))
                || code == "55P03"
                || code == "25P03"
        }
        _ => false,
    }
}

fn fault(action: &'static str, error: sqlx::Error) -> Fault {
    if is_passing(&error) {
        Fault::unavailable(action, error)
    } else {
        Fault::backend(action, error)
    }
}

/// What the server said, where a fault is an answer of it.
fn answer_of(fault: &Fault) -> Option<&dyn DatabaseError> {
    std::error::Error::source(fault)?
        .downcast_ref::<sqlx::Error>()?
        .as_database_error()
}

/// Reads a record that the server made into JSON.
fn read<T: DeserializeOwned>(json: &str) -> sqlx::Result<T> {
    serde_json::from_str(json).map_err(|e| sqlx::Error::Decode(Box::new(e)))
}

/// The same of many.
fn read_all<T: DeserializeOwned>(rows: Vec<String>) -> sqlx::Result<Vec<T>> {
    rows.iter().map(|json| read(json)).collect()
}

impl Tables {
    /// Statements that need no transaction.
    async fn ask<T>(
        &self,
        action: &'static str,
        work: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, Fault> {
        let started = Instant::now();
        let done = self.link.run(action, work).await;
        self.metrics
            .operated("postgres", action, done.is_ok(), started.elapsed());
        done
    }

    async fn transaction<T, E: From<Fault>>(
        &self,
        action: &'static str,
        body: impl for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Abort<E>>>,
    ) -> Result<T, E> {
        let started = Instant::now();
        let done = self.link.transaction(action, body).await;
        self.metrics
            .operated("postgres", action, done.is_ok(), started.elapsed());
        done
    }
}

impl Postgres {
    /// Connects to a database whose tables are there and of this version.
    pub async fn open(settings: &PostgresSettings, metrics: Arc<Metrics>) -> Result<Self, Fault> {
        let action = "open the database";
        let link = Arc::new(Link::open(settings).await?);
        let plan = link
            .run(action, async {
                let mut connection = link.pool().acquire().await?;
                schema::inspect(&mut connection).await
            })
            .await?;
        if !plan.is_done() {
            let reasons = if plan.problems.is_empty() {
                plan.steps
            } else {
                plan.problems
            };
            let advice = "the tables are not those of this version; `janitor-runner migrate --dry-run` tells more, `janitor-runner migrate` adds what is missing";
            return Err(Fault::backend(
                action,
                format!("{advice} ({})", reasons.join("; ")),
            ));
        }
        let query = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'last_run_insert' AND tgrelid = 'run'::regclass)",
        );
        let has_our_triggers = link.run(action, query.fetch_one(link.pool())).await?;
        let tables = Tables {
            link,
            seen: Arc::default(),
            orphans: Arc::default(),
            frontier: Arc::default(),
            limited: Arc::default(),
            availability: Arc::default(),
            to_tell: Arc::default(),
            has_our_triggers,
            metrics,
        };
        let telling = pauses::Telling::start(&tables, pool::options(settings)?);
        let (claims, results) = (tables.clone(), tables.clone());
        Ok(Self {
            claims: Arc::new(Batcher::start(LANES, CLAIMS_AT_ONCE, move |batch| {
                Box::pin(claims.clone().claim_all(batch))
            })),
            results: Arc::new(Batcher::start(LANES, RESULTS_AT_ONCE, move |batch| {
                Box::pin(results.clone().record_all(batch))
            })),
            tables,
            _telling: Arc::new(telling),
        })
    }
}
