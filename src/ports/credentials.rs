//! Workers and their passwords.

use super::Fault;
use crate::domain::time::Time;
use async_trait::async_trait;

/// Why an operation on workers failed.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// A worker of that name is there already.
    #[error("a worker {0} exists already")]
    Exists(String),
    /// The store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A worker that may log in.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct WorkerAccount {
    pub name: String,
    pub link: Option<String>,
    /// When it last took or finished a run, or gave a sign of life on one; a store may be some seconds behind.
    pub last_seen: Option<Time>,
    /// Its last runs in a row that failed because of the worker.
    pub failures: u32,
}

/// The workers' accounts. Passwords are stored only as salted hashes.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Whether a worker of that name has that password. An unknown name takes as long as a wrong password.
    async fn verify(&self, name: &str, password: &str) -> Result<bool, CredentialsError>;

    /// Adds a worker.
    ///
    /// # Errors
    /// `Exists` when the name is taken; its password stays.
    async fn add(
        &self,
        name: &str,
        password: &str,
        link: Option<String>,
    ) -> Result<(), CredentialsError>;

    /// Gives a worker another password; false when there is none of that name.
    async fn set_password(&self, name: &str, password: &str) -> Result<bool, CredentialsError>;

    /// Takes a worker away; false when there is none of that name.
    async fn remove(&self, name: &str) -> Result<bool, CredentialsError>;

    /// The worker of that name.
    async fn account(&self, name: &str) -> Result<Option<WorkerAccount>, CredentialsError>;

    /// All workers, by name.
    async fn list(&self) -> Result<Vec<WorkerAccount>, CredentialsError>;
}
