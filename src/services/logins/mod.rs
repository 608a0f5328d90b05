//! The logins of workers.
//!
//! A password is hashed once; after that its login is remembered, and each second the account is
//! looked at again, so that revoking it works at once, also when another runner did it. Hashing
//! takes long on purpose: it has a queue for names that have logged in lately and one for all
//! others, so that a flood of guesses delays nobody who was here before.

mod guesses;

pub use guesses::Guesser;

use super::ServiceError;
use crate::{
    domain::worker_limits::LoginLimits,
    metrics::{LoginOutcome, Metrics},
    ports::{Credentials, Fault, credentials::LoginStamp},
};
use guesses::{Guesses, WINDOW};
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Semaphore, time::Instant};
use tracing::Instrument;

/// How long the account of a remembered login is not looked at again.
const MAX_AGE: Duration = Duration::from_secs(1);
/// For how long a remembered login is good while the store cannot say whether its account is still
/// the same.
const MAX_AGE_WITHOUT_STORE: Duration = Duration::from_secs(60);
/// For how long a login is remembered that is not used.
const IDLE_TIME: Duration = Duration::from_secs(24 * 3600);
/// How many logins, and how many names, are remembered at most.
const MAX_REMEMBERED: u64 = 10_000;
/// How many passwords of each queue are hashed at the same time.
const MAX_CONCURRENT_HASHES: usize = 1;
/// How many logins of unknown names wait at most.
const MAX_WAITING: usize = 1000;
/// How many bytes of a name are counted and shown: no account has a longer one, and headers may be
/// large.
const MAX_COUNTED_NAME: usize = 200;
/// How many addresses the figures have.
const MAX_SHOWN: usize = 100;

/// The digest of a name and a password; neither itself is kept.
type Key = [u8; 32];

/// Returns the digest of a login. The length of the name is part of it, so that ("ab", "c") and
/// ("a", "bc") differ.
fn digest(name: &str, password: &str) -> Key {
    let mut digest = Sha256::new();
    digest.update(name.len().to_be_bytes());
    digest.update(name);
    digest.update(password);
    digest.finalize().into()
}

/// A login whose password was right.
struct Remembered {
    stamp: LoginStamp,
    checked: Mutex<Checked>,
}

/// When the account of a login was last looked at.
#[derive(Clone, Copy)]
struct Checked {
    at: Instant,
    /// When it was last found to be the same.
    confirmed: Instant,
    /// The number of changes of accounts that this process had made before.
    changes: u64,
}

impl Remembered {
    fn checked(&self) -> Checked {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set_checked(&self, checked: Checked) {
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = checked;
    }
}

/// A login that was right when the request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    name: String,
    key: Key,
}

/// What became of a login.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginResult {
    /// Name and password are right.
    Right(Login),
    /// They are not.
    Wrong,
    /// There were too many wrong ones, or too many wait; another try may succeed after that time.
    TryLater(Duration),
}

/// Who logs in.
#[derive(Debug, Clone, Copy)]
pub struct Credential<'a> {
    /// The name of the account.
    pub name: &'a str,
    /// The password.
    pub password: &'a str,
}

/// A login whose password is to be hashed.
struct Attempt {
    name: String,
    password: String,
    key: Key,
    /// The start of the name, and the address, by which guesses are counted.
    counted: (String, String),
    is_known: bool,
}

/// Figures about logins since the start of the process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginFigures {
    /// The passwords that were hashed and right.
    pub right: u64,
    /// The logins that were wrong.
    pub wrong: u64,
    /// Those that were refused without looking at their passwords.
    pub refused: u64,
    /// The addresses with the most wrong and refused ones.
    pub guessers: Vec<Guesser>,
}

/// A place in the queue of those that wait for their hash.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Checks the logins of workers.
pub struct Logins {
    credentials: Arc<dyn Credentials>,
    metrics: Arc<Metrics>,
    remembered: Cache<Key, Arc<Remembered>>,
    /// The names and addresses that have logged in lately.
    known: Cache<(String, String), ()>,
    /// The number of changes of accounts by this process.
    changes: AtomicU64,
    guesses: Guesses,
    hashes_of_known: Arc<Semaphore>,
    hashes_of_others: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Logins {
    /// Creates the service; no login is remembered.
    pub fn new(
        credentials: Arc<dyn Credentials>,
        metrics: Arc<Metrics>,
        limits: LoginLimits,
    ) -> Self {
        Self {
            credentials,
            metrics,
            remembered: Cache::builder()
                .max_capacity(MAX_REMEMBERED)
                .time_to_idle(IDLE_TIME)
                .build(),
            known: Cache::builder()
                .max_capacity(MAX_REMEMBERED)
                .time_to_idle(IDLE_TIME)
                .build(),
            changes: AtomicU64::new(0),
            guesses: Guesses::new(limits),
            hashes_of_known: Arc::new(Semaphore::new(MAX_CONCURRENT_HASHES)),
            hashes_of_others: Arc::new(Semaphore::new(MAX_CONCURRENT_HASHES)),
            waiting: AtomicUsize::new(0),
        }
    }

    /// Makes every login be looked at again, because an account was changed.
    pub fn account_changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    /// Checks a login that comes from `address`.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Fault`] when the store fails.
    #[tracing::instrument(
        name = "services.logins.log_in", level = "debug", skip_all, fields(worker = login.name)
    )]
    pub async fn log_in(
        self: &Arc<Self>,
        login: Credential<'_>,
        address: impl FnOnce() -> String,
    ) -> Result<LoginResult, ServiceError> {
        let key = digest(login.name, login.password);
        if self.is_remembered(login.name, &key).await? {
            let name = login.name.to_owned();
            return Ok(LoginResult::Right(Login { name, key }));
        }
        // Boxed, so that the future of a remembered login, which all but the first are, stays small.
        Box::pin(self.log_in_anew(login, key, address())).await
    }

    /// Returns whether a login is still right: the account exists, with the same password.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Fault`] when the store fails.
    pub async fn is_valid(&self, login: &Login) -> Result<bool, ServiceError> {
        self.is_remembered(&login.name, &login.key).await
    }

    async fn is_remembered(&self, name: &str, key: &Key) -> Result<bool, ServiceError> {
        let Some(remembered) = self.remembered.get(key) else {
            return Ok(false);
        };
        let (before, now) = (remembered.checked(), Instant::now());
        let changes = self.changes.load(Ordering::SeqCst);
        // Whatever was looked at since: a store that fails slowly is asked by several requests.
        let is_same_state =
            before.changes == changes && now - before.confirmed < MAX_AGE_WITHOUT_STORE;
        if is_same_state && now - before.at < MAX_AGE {
            return Ok(true);
        }
        if is_same_state {
            // Other requests of this second need not look too.
            remembered.set_checked(Checked { at: now, ..before });
        }
        match self.credentials.stamp(name).await {
            Ok(stamp) if stamp.as_ref() == Some(&remembered.stamp) => {
                remembered.set_checked(Checked {
                    at: now,
                    confirmed: now,
                    changes,
                });
                Ok(true)
            }
            Ok(_) => {
                self.remembered.invalidate(key);
                Ok(false)
            }
            Err(error) => {
                if is_same_state {
                    return Ok(true);
                }
                Err(error.into())
            }
        }
    }

    fn refuse(&self, name: &str, address: &str, wait: Duration) -> LoginResult {
        self.guesses.refused(name, address);
        self.metrics.login(LoginOutcome::Refused);
        LoginResult::TryLater(wait)
    }

    async fn log_in_anew(
        self: &Arc<Self>,
        login: Credential<'_>,
        key: Key,
        address: String,
    ) -> Result<LoginResult, ServiceError> {
        let name = login.name;
        let counted = name.get(..name.floor_char_boundary(MAX_COUNTED_NAME));
        let counted = counted.unwrap_or_default();
        let both = (counted.to_owned(), address);
        let is_known = self.known.contains_key(&both);
        let address = &both.1;
        if self.guesses.are_too_many(counted, address, is_known) {
            return Ok(self.refuse(counted, address, WINDOW));
        }
        let _waiting = Waiting(&self.waiting);
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        if before >= MAX_WAITING && !is_known {
            return Ok(self.refuse(counted, address, MAX_AGE));
        }
        let hashes = match is_known {
            true => &self.hashes_of_known,
            false => &self.hashes_of_others,
        };
        let permit = hashes.clone().acquire_owned().await;
        let attempt = Attempt {
            password: login.password.to_owned(),
            key,
            counted: both,
            name: name.to_owned(),
            is_known,
        };
        let this = self.clone();
        // On a task of its own, which has the permit: a hash goes on when the client has gone, and
        // the guess counts.
        let task = async move {
            let _permit = permit;
            this.check(attempt).await
        };
        tokio::spawn(task.in_current_span())
            .await
            .map_err(|error| Fault::backend("check a login", error))?
    }

    /// Checks a password whose turn it is to be hashed.
    async fn check(&self, attempt: Attempt) -> Result<LoginResult, ServiceError> {
        let Attempt {
            name,
            password,
            key,
            counted,
            is_known,
        } = attempt;
        let (counted_name, address) = (&counted.0, &counted.1);
        // While this one waited, others of the same worker, or too many of the same guesser, may
        // have had their turn.
        if self.is_remembered(&name, &key).await? {
            return Ok(LoginResult::Right(Login { name, key }));
        }
        if self.guesses.are_too_many(counted_name, address, is_known) {
            return Ok(self.refuse(counted_name, address, WINDOW));
        }
        // A change meanwhile makes the login be looked at again before it is used.
        let now = Instant::now();
        let checked = Checked {
            at: now,
            confirmed: now,
            changes: self.changes.load(Ordering::SeqCst),
        };
        let Some(stamp) = self.credentials.verify(&name, &password).await? else {
            self.guesses.wrong(counted_name, address);
            self.metrics.login(LoginOutcome::Wrong);
            return Ok(LoginResult::Wrong);
        };
        self.metrics.login(LoginOutcome::Right);
        let checked = Mutex::new(checked);
        let remembered = Arc::new(Remembered { stamp, checked });
        self.remembered.insert(key, remembered);
        self.known.insert(counted, ());
        let login = Login { name, key };
        Ok(match self.is_valid(&login).await? {
            true => LoginResult::Right(login),
            false => LoginResult::Wrong,
        })
    }

    /// Returns figures about the logins.
    pub fn figures(&self) -> LoginFigures {
        let [right, wrong, refused] = LoginOutcome::ALL.map(|of| self.metrics.logins(of));
        LoginFigures {
            right,
            wrong,
            refused,
            guessers: self.guesses.guessers_by_number(MAX_SHOWN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::credentials::MockCredentials;

    #[tokio::test(start_paused = true)]
    async fn login_ends_when_the_store_fails_for_a_minute_however_slowly() {
        let mut credentials = MockCredentials::new();
        let stamp = || Some(LoginStamp([0; 32]));
        credentials
            .expect_verify()
            .returning(move |_, _| Ok(stamp()));
        credentials
            .expect_stamp()
            .times(1)
            .returning(move |_| Ok(stamp()));
        credentials
            .expect_stamp()
            .returning(|_| Err(Fault::unavailable("look", "it is down").into()));
        let limits = LoginLimits {
            by_address: 9,
            by_name: 9,
        };
        let metrics = Arc::new(Metrics::new());
        let logins = Arc::new(Logins::new(Arc::new(credentials), metrics, limits));
        let credential = Credential {
            name: "w1",
            password: "p",
        };
        let log_in = async || logins.log_in(credential, || "a".to_owned()).await;
        assert!(matches!(log_in().await, Ok(LoginResult::Right(_))));
        tokio::time::sleep(MAX_AGE).await;
        assert!(matches!(log_in().await, Ok(LoginResult::Right(_))));
        for _ in 0..58 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(matches!(log_in().await, Ok(LoginResult::Right(_))));
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(log_in().await.is_err());
    }

    #[tokio::test]
    async fn only_the_start_of_a_long_name_is_counted() {
        let mut credentials = MockCredentials::new();
        credentials.expect_verify().returning(|_, _| Ok(None));
        let limits = LoginLimits {
            by_address: 2,
            by_name: 9,
        };
        let credentials = Arc::new(credentials);
        let logins = Arc::new(Logins::new(credentials, Arc::new(Metrics::new()), limits));
        let name = "\u{e9}".repeat(100_000);
        let credential = Credential {
            name: &name,
            password: "guess",
        };
        for _ in 0..2 {
            let result = logins.log_in(credential, || "a".to_owned()).await.unwrap();
            assert_eq!(result, LoginResult::Wrong);
        }
        let result = logins.log_in(credential, || "a".to_owned()).await.unwrap();
        assert_eq!(result, LoginResult::TryLater(WINDOW));
        let figures = logins.figures();
        assert_eq!(figures.guessers[0].last_name.len(), MAX_COUNTED_NAME);
    }
}
