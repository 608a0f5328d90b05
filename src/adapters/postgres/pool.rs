//! The connection pool, and whether the server answers at all. A server that hangs is found out by a watcher of its own,
//! so that no request has to wait for it, while a statement that takes long on a server that is well may do so.

use super::Abort;
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

/// How often the server is asked for a sign of life, and how long it may take.
const ASK_EVERY: Duration = Duration::from_millis(400);
const PATIENCE: Duration = Duration::from_millis(1100);
/// Statements that were given up while the server did not answer have ended so long after it answers again.
const SETTLED: Duration = Duration::from_secs(3);
/// How long a request waits for a connection while all are in use.
const ACQUIRE: Duration = Duration::from_millis(1500);
/// A transaction that lost against another is tried again so often.
const TRIES: u32 = 6;

/// Why work is given up while the server does not answer.
pub(super) const DOWN: &str = "the database does not answer";

/// How the server is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresSettings {
    /// `postgresql://…`
    pub url: String,
    /// Connections at the same time, at the most; one more watches the server.
    pub max_connections: u32,
    /// The server gives up a statement that takes longer.
    pub statement_timeout: Duration,
}

/// The pool, guarded by a watcher.
#[derive(Debug)]
pub(super) struct Link {
    pool: PgPool,
    answers: watch::Receiver<bool>,
    /// When that changed.
    since: Arc<Mutex<Instant>>,
    _watcher: AbortOnDropHandle<()>,
}

pub(super) fn options(settings: &PostgresSettings) -> Result<PgConnectOptions, Fault> {
    let options = PgConnectOptions::from_str(&settings.url)
        .map_err(|e| Fault::backend("read the URL of the database", e))?;
    let limit = settings.statement_timeout.as_millis().to_string();
    // Statements are counted and timed by our own metrics; some that take long, such as large uploads, are no alarm.
    Ok(options
        .disable_statement_logging()
        .application_name("janitor-runner")
        .options([
            ("statement_timeout", limit.as_str()),
            ("lock_timeout", "5000"),
            // A runner that was stopped in the middle of a transaction does not hold its locks for long.
            ("idle_in_transaction_session_timeout", "3000"),
            ("timezone", "UTC"),
            // Plans are kept, also those made while a table was empty, for which reading all of it was best. Compiling plans
            // takes longer than any of them runs.
            ("enable_seqscan", "off"),
            // A bitmap and a sort of the whole queue seem cheap while nothing is known of its size.
            ("enable_bitmapscan", "off"),
            ("jit", "off"),
            // Planning the larger statements takes as long as carrying them out, and their plans do not depend on the values.
            ("plan_cache_mode", "force_generic_plan"),
        ]))
}

/// Asks for a sign of life again and again.
async fn watch_over(
    options: PgConnectOptions,
    answers: watch::Sender<bool>,
    since: Arc<Mutex<Instant>>,
) {
    let mut connection: Option<PgConnection> = None;
    loop {
        let asked = timeout(PATIENCE, async {
            let mut open = match connection.take() {
                Some(open) => open,
                None => PgConnection::connect_with(&options).await?,
            };
            open.ping().await?;
            Ok::<_, sqlx::Error>(open)
        });
        let answered = match asked.await {
            Ok(Ok(open)) => {
                connection = Some(open);
                true
            }
            Ok(Err(_)) | Err(_) => false,
        };
        if answers.send_replace(answered) != answered {
            *since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            tracing::warn!(answered, "the database's state has changed");
        }
        sleep(ASK_EVERY).await;
    }
}

/// A connection with a transaction. Given up half-way, it is closed rather than returned to the pool: a BEGIN whose answer
/// was not waited for would take the next user's statements into a transaction that nobody commits.
struct Guard(Option<PoolConnection<Postgres>>);

impl Guard {
    /// Returns the connection to the pool: its transaction has ended.
    fn give_back<T>(mut self, done: T) -> T {
        drop(self.0.take());
        done
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(connection) = &mut self.0 {
            connection.close_on_drop();
        }
    }
}

impl Link {
    pub(super) async fn open(settings: &PostgresSettings) -> Result<Self, Fault> {
        let options = options(settings)?;
        let pool = PgPoolOptions::new()
            .max_connections(settings.max_connections)
            .acquire_timeout(ACQUIRE)
            // The watcher tests the server; a connection that broke fails once and is replaced.
            .test_before_acquire(false)
            .connect_lazy_with(options.clone());
        let (send, answers) = watch::channel(true);
        let since = Arc::new(Mutex::new(Instant::now()));
        let watcher =
            AbortOnDropHandle::new(tokio::spawn(watch_over(options, send, since.clone())));
        let link = Self {
            pool,
            answers,
            since,
            _watcher: watcher,
        };
        timeout(
            PATIENCE * 4,
            link.run("connect to the database", link.pool.acquire()),
        )
        .await
        .map_err(|_| Fault::unavailable("connect to the database", "no answer"))??;
        Ok(link)
    }

    pub(super) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Whether the server answers, as far as the watcher knows.
    pub(super) fn answers(&self) -> bool {
        *self.answers.borrow()
    }

    /// Whether nothing that was given up can still be going on there.
    pub(super) fn is_settled(&self) -> bool {
        self.answers()
            && self
                .since
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .elapsed()
                > SETTLED
    }

    /// Works with the server; given up when the server stops to answer. What was under way then may have happened.
    pub(super) async fn run<T>(
        &self,
        action: &'static str,
        work: impl Future<Output = sqlx::Result<T>>,
    ) -> Result<T, Fault> {
        let mut answers = self.answers.clone();
        tokio::select! {
            biased;
            _ = answers.wait_for(|answers| !answers) => Err(Fault::unavailable(action, DOWN)),
            done = work => done.map_err(|error| super::fault(action, error)),
        }
    }

    /// Carries out a transaction: all of it or nothing. The body is tried again when it lost against another.
    pub(super) async fn transaction<T, E: From<Fault>>(
        &self,
        action: &'static str,
        body: impl for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Result<T, Abort<E>>>,
    ) -> Result<T, E> {
        let mut tries = 0;
        loop {
            tries += 1;
            let attempt = self.run(action, async {
                let mut guard = Guard(Some(self.pool.acquire().await?));
                let Some(connection) = guard.0.as_deref_mut() else {
                    return Err(sqlx::Error::PoolClosed);
                };
                let mut transaction = connection.begin().await?;
                let done = match body(&mut transaction).await {
                    Ok(done) => {
                        transaction.commit().await?;
                        Ok(done)
                    }
                    Err(Abort::Sql(error)) => {
                        return if transaction.rollback().await.is_ok() {
                            guard.give_back(Err(error))
                        } else {
                            Err(error)
                        };
                    }
                    Err(other) => {
                        transaction.rollback().await?;
                        Err(other)
                    }
                };
                guard.give_back(Ok(done))
            });
            match attempt.await {
                Ok(Ok(done)) => return Ok(done),
                Ok(Err(Abort::Refused(why))) => return Err(why),
                Ok(Err(_)) if tries < TRIES => {}
                Err(fault) if tries < TRIES && lost_a_race(&fault) => {}
                Ok(Err(_)) => {
                    return Err(Fault::unavailable(
                        action,
                        "others change the same rows all the time",
                    )
                    .into());
                }
                Err(fault) => return Err(fault.into()),
            }
            sleep(Duration::from_millis(u64::from(tries) * 3)).await;
        }
    }
}

/// Deadlock or serialization failure: nothing was changed, and another try may do.
pub(super) fn lost_a_race(fault: &Fault) -> bool {
    let code = super::answer_of(fault).and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some("40001" | "40P01"))
}
