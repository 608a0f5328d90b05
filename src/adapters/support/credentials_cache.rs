//! A cache of verified passwords, so that not every request of a worker costs a password hash.

use crate::ports::{Credentials, CredentialsError, credentials::WorkerAccount};
use async_trait::async_trait;
use moka::sync::Cache;
use sha2::{Digest, Sha256};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// How long a verified password is not verified again.
const CACHE_TTL: Duration = Duration::from_secs(60);
/// How many passwords are cached at most.
const MAX_CACHED_LOGINS: u64 = 10_000;
/// How many passwords are hashed at the same time. Others wait, so that guesses cannot use all
/// processors.
const MAX_CONCURRENT_HASHES: usize = 2;

/// Credentials with a cache before them.
///
/// Changes made through it take effect at once, changes made by another process within a minute.
pub struct CachedCredentials {
    inner: Arc<dyn Credentials>,
    /// The digests of verified names and passwords; neither itself is kept.
    verified: Cache<[u8; 32], ()>,
    hashing: Semaphore,
}

impl CachedCredentials {
    /// Creates an empty cache before `inner`.
    pub fn new(inner: Arc<dyn Credentials>) -> Self {
        let verified = Cache::builder()
            .max_capacity(MAX_CACHED_LOGINS)
            .time_to_live(CACHE_TTL)
            .build();
        Self {
            inner,
            verified,
            hashing: Semaphore::new(MAX_CONCURRENT_HASHES),
        }
    }
}

/// Returns the digest of a login. The length of the name is part of it, so that ("ab", "c") and
/// ("a", "bc") differ.
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
        if self.verified.contains_key(&key) {
            return Ok(true);
        }
        let _permit = self.hashing.acquire().await;
        // Another request of the same worker may have been verified while this one waited.
        let is_right =
            self.verified.contains_key(&key) || self.inner.verify(name, password).await?;
        if is_right {
            self.verified.insert(key, ());
        }
        Ok(is_right)
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
        // Which digests are of this name is not known, so all go; even on failure, since it may
        // have been set.
        self.verified.invalidate_all();
        set
    }

    async fn remove(&self, name: &str) -> Result<bool, CredentialsError> {
        let removed = self.inner.remove(name).await;
        self.verified.invalidate_all();
        removed
    }

    async fn account(&self, name: &str) -> Result<Option<WorkerAccount>, CredentialsError> {
        self.inner.account(name).await
    }

    async fn failures(&self, counted_name: &str) -> Result<u32, CredentialsError> {
        self.inner.failures(counted_name).await
    }

    async fn list(&self) -> Result<Vec<WorkerAccount>, CredentialsError> {
        self.inner.list().await
    }
}
