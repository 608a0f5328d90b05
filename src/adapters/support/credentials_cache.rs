//! Remembers logins that were right a moment ago, so that each request of a worker does not cost a password hash.

use crate::ports::{Credentials, CredentialsError, credentials::WorkerAccount};
use async_trait::async_trait;
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// How long a login that was right needs no other look.
const REMEMBERED: Duration = Duration::from_secs(60);
const MOST_LOGINS: u64 = 10_000;
/// Password hashes at the same time; others wait, so that guesses cannot take all processors.
const HASHES_AT_ONCE: usize = 2;

/// A front for any credentials. Changes made through it take effect at once, changes made elsewhere within a minute.
pub struct CachedCredentials {
    inner: Arc<dyn Credentials>,
    /// By digest of name and password; neither is kept.
    right: Cache<[u8; 32], ()>,
    hashing: Semaphore,
}

impl CachedCredentials {
    /// Puts a cache before `inner`.
    pub fn new(inner: Arc<dyn Credentials>) -> Self {
        let right = Cache::builder()
            .max_capacity(MOST_LOGINS)
            .time_to_live(REMEMBERED)
            .build();
        Self {
            inner,
            right,
            hashing: Semaphore::new(HASHES_AT_ONCE),
        }
    }
}

fn digest(name: &str, password: &str) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(name.len().to_be_bytes());
    digest.update(name);
    digest.update(password);
    digest.finalize().into()
}

#[async_trait]
impl Credentials for CachedCredentials {
    async fn verify(&self, name: &str, password: &str) -> Result<bool, CredentialsError> {
        let key = digest(name, password);
        if self.right.contains_key(&key) {
            return Ok(true);
        }
        let _turn = self.hashing.acquire().await;
        let right = self.right.contains_key(&key) || self.inner.verify(name, password).await?;
        if right {
            self.right.insert(key, ());
        }
        Ok(right)
    }

    async fn add(
        &self,
        name: &str,
        password: &str,
        link: Option<String>,
    ) -> Result<(), CredentialsError> {
        self.inner.add(name, password, link).await
    }

    async fn set_password(&self, name: &str, password: &str) -> Result<bool, CredentialsError> {
        let set = self.inner.set_password(name, password).await;
        self.right.invalidate_all();
        set
    }

    async fn remove(&self, name: &str) -> Result<bool, CredentialsError> {
        let removed = self.inner.remove(name).await;
        self.right.invalidate_all();
        removed
    }

    async fn account(&self, name: &str) -> Result<Option<WorkerAccount>, CredentialsError> {
        self.inner.account(name).await
    }

    async fn list(&self) -> Result<Vec<WorkerAccount>, CredentialsError> {
        self.inner.list().await
    }
}
