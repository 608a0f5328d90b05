//! The accounts of workers.

use super::Fault;
use crate::domain::time::Time;
use async_trait::async_trait;

/// Why an operation on accounts failed.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A worker of that name exists already.
    #[error("a worker {0} exists already")]
    Exists(String),
    /// The store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A mark of the password that an account has: another password has another one. It says nothing
/// about the password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginStamp(pub [u8; 32]);

/// A worker that may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerAccount {
    /// The name.
    pub name: String,
    /// The URL of a page about the worker.
    pub link: Option<String>,
    /// The time at which it last claimed or finished a run or sent a heartbeat. A store may be some
    /// seconds behind.
    pub last_seen: Option<Time>,
    /// The number of its last runs in a row that failed through the worker's fault.
    pub failures: u32,
}

/// The accounts of workers. Passwords are stored only as salted hashes. All methods may fail with
/// [`CredentialsError::Fault`].
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Returns the stamp of the account when a worker of that name has that password. An unknown
    /// name takes as long as a wrong password, so that names cannot be guessed by the time of a
    /// response. A hash that is weaker than those of new passwords is replaced.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Fault`] when the store fails.
    async fn verify(
        &self,
        name: &str,
        password: &str,
    ) -> Result<Option<LoginStamp>, CredentialsError>;

    /// Returns the stamp of an account; `None` when there is none of that name.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Fault`] when the store fails.
    async fn stamp(&self, name: &str) -> Result<Option<LoginStamp>, CredentialsError>;

    /// Adds a worker.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Exists`] when there is a worker of that name; its password stays.
    async fn add(
        &self,
        name: &str,
        password: &str,
        link: Option<String>,
    ) -> Result<(), CredentialsError>;

    /// Replaces the password of a worker. Returns false when there is none of that name.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Fault`] when the store fails.
    async fn set_password(&self, name: &str, password: &str) -> Result<bool, CredentialsError>;

    /// Removes a worker, with the failures that are counted of it and its nodes. Returns false when
    /// there is none of that name.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Fault`] when the store fails.
    async fn remove(&self, name: &str) -> Result<bool, CredentialsError>;

    /// Returns the account of that name.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Fault`] when the store fails.
    async fn account(&self, name: &str) -> Result<Option<WorkerAccount>, CredentialsError>;

    /// Returns the number of failures in a row that are counted under a name: that of an account,
    /// or `ACCOUNT/NODE`.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Fault`] when the store fails.
    async fn failures(&self, counted_name: &str) -> Result<u32, CredentialsError>;

    /// Returns all accounts, by name.
    ///
    /// # Errors
    ///
    /// [`CredentialsError::Fault`] when the store fails.
    async fn list(&self) -> Result<Vec<WorkerAccount>, CredentialsError>;
}
