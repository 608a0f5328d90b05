//! The connection pool, and whether the server answers at all. A watcher of its own finds out when
//! the server hangs, so that no request has to wait for it, while a statement that takes long on a
//! healthy server may do so.

use super::error::{self, Abort};
use crate::ports::Fault;
use futures::future::BoxFuture;
use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool, Postgres,
    pool::PoolConnection,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

/// How often the watcher pings the server.
const PING_INTERVAL: Duration = Duration::from_millis(400);
/// How long a ping may take.
const PING_TIMEOUT: Duration = Duration::from_millis(1100);
/// So long after the server answers again, statements that were abandoned while it did not have
/// ended.
const GRACE_PERIOD: Duration = Duration::from_secs(3);
/// How long a request waits for a connection while all are in use.
const ACQUIRE_TIMEOUT: Duration = Duration::from_millis(1500);
/// How often a transaction that lost against another is attempted.
const MAX_ATTEMPTS: u32 = 6;

/// Why work is abandoned while the server does not answer.
pub(super) const UNREACHABLE: &str = "the database does not answer";

/// How the server is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// `postgresql://…`
    pub url: String,
    /// Maximum number of connections at the same time; one more watches the server.
    pub max_connections: u32,
    /// The server cancels a statement that takes longer.
    pub statement_timeout: Duration,
    /// Maximum number of connections for lists and figures at the same time, besides the others.
    pub read_connections: u32,
    /// The server cancels a statement for a list or a figure that takes longer.
    pub read_timeout: Duration,
}

/// The pool, with a watcher that knows whether the server answers.
#[derive(Debug)]
pub(super) struct MonitoredPool {
    pool: PgPool,
    /// Connections for lists and figures, which must not keep claims and results waiting.
    readers: PgPool,
    reachable: watch::Receiver<bool>,
    /// When `reachable` changed last.
    changed: Arc<Mutex<Instant>>,
    _watcher: AbortOnDropHandle<()>,
}

/// Returns how connections are opened.
pub(super) fn options(settings: &PostgresSettings) -> Result<PgConnectOptions, Fault> {
    let options = PgConnectOptions::from_str(&settings.url)
        .map_err(|e| Fault::backend("read the URL of the database", e))?;
    let statement_timeout = settings.statement_timeout.as_millis().to_string();
    // Our own metrics count and time the statements; some that take long, such as large uploads,
    // are no reason to warn.
    Ok(options
        .disable_statement_logging()
        .application_name("janitor-runner")
        .options([
            ("statement_timeout", statement_timeout.as_str()),
            ("lock_timeout", "5000"),
            // A runner that was stopped in the middle of a transaction does not hold its locks for
            // long.
            ("idle_in_transaction_session_timeout", "3000"),
            ("timezone", "UTC"),
            // The triggers for what other services write do nothing for our own statements.
            ("runner.own", "on"),
            // Plans are kept, also those made while a table was empty, for which reading all of it
            // was best. Compiling plans takes longer than any of them runs.
            ("enable_seqscan", "off"),
            // A bitmap and a sort of the whole queue seem cheap while nothing is known of its
            // size.
            ("enable_bitmapscan", "off"),
            ("jit", "off"),
            // Planning the larger statements takes as long as running them, and their plans do not
            // depend on the values.
            ("plan_cache_mode", "force_generic_plan"),
        ]))
}

/// Returns how connections for lists and figures are opened.
fn read_options(settings: &PostgresSettings, options: PgConnectOptions) -> PgConnectOptions {
    let timeout = settings.read_timeout.min(settings.statement_timeout);
    options.options([
        (
            "statement_timeout",
            timeout.as_millis().to_string().as_str(),
        ),
        ("default_transaction_read_only", "on"),
    ])
}

/// Lets the server cancel a statement whose client has gone. Servers before version 14 cannot.
async fn notice_absence(connection: &mut PgConnection) -> sqlx::Result<()> {
    let set = sqlx::query("SET client_connection_check_interval = 500");
    match set.execute(connection).await {
        Err(error @ sqlx::Error::Database(_)) => {
            tracing::debug!(%error, "the database goes on for clients that have gone");
            Ok(())
        }
        done => done.map(drop),
    }
}

fn pool(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // The watcher tests the server; a connection that broke fails once and is replaced.
        .test_before_acquire(false)
}

/// Pings the server again and again.
async fn watch_server(
    options: PgConnectOptions,
    reachable: watch::Sender<bool>,
    changed: Arc<Mutex<Instant>>,
) {
    let mut connection: Option<PgConnection> = None;
    loop {
        let ping = timeout(PING_TIMEOUT, async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => PgConnection::connect_with(&options).await?,
            };
            open.ping().await?;
            Ok::<_, sqlx::Error>(open)
        });
        let answered = match ping.await {
            Ok(Ok(open)) => {
                connection = Some(open);
                true
            }
            Ok(Err(_)) | Err(_) => false,
        };
        if reachable.send_replace(answered) != answered {
            *changed.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            tracing::warn!(answered, "the database's state has changed");
        }
        sleep(PING_INTERVAL).await;
    }
}

/// A connection with a transaction, or for a list. One that is dropped half-way is closed rather than
/// returned to the pool: a BEGIN whose reply was not waited for would take the next user's statements
/// into a transaction that nobody commits, and a statement that nobody waits for would go on.
struct ConnectionGuard(Option<PoolConnection<Postgres>>);

impl ConnectionGuard {
    /// Returns the connection to the pool: its transaction or statement has ended.
    fn finish<T>(mut self, result: T) -> T {
        drop(self.0.take());
        result
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.0 {
            connection.close_on_drop();
        }
    }
}

impl MonitoredPool {
    /// Connects to the server.
    pub(super) async fn open(settings: &PostgresSettings) -> Result<Self, Fault> {
        let options = options(settings)?;
        let readers = pool(settings.read_connections)
            .after_connect(|connection, _| Box::pin(notice_absence(connection)))
            .connect_lazy_with(read_options(settings, options.clone()));
        let pool = pool(settings.max_connections).connect_lazy_with(options.clone());
        let (sender, reachable) = watch::channel(true);
        let changed = Arc::new(Mutex::new(Instant::now()));
        let watcher =
            AbortOnDropHandle::new(tokio::spawn(watch_server(options, sender, changed.clone())));
        let pool = Self {
            pool,
            readers,
            reachable,
            changed,
            _watcher: watcher,
        };
        timeout(
            PING_TIMEOUT * 4,
            pool.run("connect to the database", pool.pool.acquire()),
        )
        .await
        .map_err(|_| Fault::unavailable("connect to the database", "no answer"))??;
        Ok(pool)
    }

    /// Returns the connections.
    pub(super) fn connections(&self) -> &PgPool {
        &self.pool
    }

    /// Whether the server answers, as far as the watcher knows.
    pub(super) fn is_reachable(&self) -> bool {
        *self.reachable.borrow()
    }

    /// Whether no statement that was abandoned can still be running on the server.
    pub(super) fn is_settled(&self) -> bool {
        let changed = *self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_reachable() && changed.elapsed() > GRACE_PERIOD
    }

    /// Runs statements, and abandons them when the server stops answering. What was under way then
    /// may have happened.
    pub(super) async fn run<T>(
        &self,
        action: &'static str,
        work: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, Fault> {
        let mut reachable = self.reachable.clone();
        tokio::select! {
            biased;
            _ = reachable.wait_for(|reachable| !reachable) => {
                Err(Fault::unavailable(action, UNREACHABLE))
            }
            done = work => done.map_err(|error| error::fault(action, error)),
        }
    }

    /// Reads a list or a figure on a connection that claims and results do not need. When whoever
    /// asked for it goes away, the connection is closed, and the server cancels the statement.
    pub(super) async fn read<T>(
        &self,
        action: &'static str,
        work: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<T>>,
    ) -> Result<T, Fault> {
        self.run(action, async {
            let mut guard = ConnectionGuard(Some(self.readers.acquire().await?));
            let Some(connection) = guard.0.as_deref_mut() else {
                return Err(sqlx::Error::PoolClosed);
            };
            let result = work(connection).await;
            guard.finish(result)
        })
        .await
    }

    /// Runs a transaction: all of it or nothing. The body is run again when it lost against
    /// another transaction.
    pub(super) async fn transaction<T, E: From<Fault>>(
        &self,
        action: &'static str,
        body: impl for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Abort<E>>>,
    ) -> Result<T, E> {
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.run(action, self.attempt(&body)).await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(Abort::Refused(why))) => return Err(why),
                Ok(Err(_)) if attempts < MAX_ATTEMPTS => {}
                Err(fault) if attempts < MAX_ATTEMPTS && error::is_conflict(&fault) => {}
                Ok(Err(_)) => {
                    let why = "others change the same rows all the time";
                    return Err(Fault::unavailable(action, why).into());
                }
                Err(fault) => return Err(fault.into()),
            }
            sleep(Duration::from_millis(u64::from(attempts) * 3)).await;
        }
    }

    /// Runs a transaction once. The outer result is that of the database, the inner one is what
    /// the body returned.
    async fn attempt<T, E>(
        &self,
        body: &impl for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Abort<E>>>,
    ) -> sqlx::Result<Result<T, Abort<E>>> {
        let mut guard = ConnectionGuard(Some(self.pool.acquire().await?));
        let Some(connection) = guard.0.as_deref_mut() else {
            return Err(sqlx::Error::PoolClosed);
        };
        let mut transaction = connection.begin().await?;
        let result = match body(&mut transaction).await {
            Ok(done) => {
                transaction.commit().await?;
                Ok(done)
            }
            Err(Abort::Sql(error)) => {
                return if transaction.rollback().await.is_ok() {
                    guard.finish(Err(error))
                } else {
                    Err(error)
                };
            }
            Err(other) => {
                transaction.rollback().await?;
                Err(other)
            }
        };
        guard.finish(Ok(result))
    }
}
