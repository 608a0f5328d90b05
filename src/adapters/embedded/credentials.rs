//! Workers' accounts on the embedded stores.

use super::{
    keys,
    records::{Moment, StoredWorker},
    store::Embedded,
    txn::{Txn, decode},
};
use crate::{
    adapters::{off_thread, support::password},
    ports::{
        Credentials, CredentialsError, Fault,
        credentials::{LoginStamp, WorkerAccount},
    },
};
use async_trait::async_trait;
use std::ops::ControlFlow;

/// Hashes a password off the async threads, since that takes tens of milliseconds on purpose.
async fn hash(plain: &str) -> Result<String, Fault> {
    let plain = plain.to_owned();
    off_thread("hash a password", move || password::hash(&plain)).await?
}

fn account(txn: &Txn<'_>, name: String, worker: StoredWorker) -> Result<WorkerAccount, Fault> {
    let last_seen = txn
        .get::<Moment>(&keys::worker_seen(&name))?
        .map(|Moment(time)| time);
    let failures = u32::try_from(txn.number(&keys::worker_failures(&name))?).unwrap_or(u32::MAX);
    Ok(WorkerAccount {
        name,
        link: worker.link,
        last_seen,
        failures,
    })
}

/// Returns the keys of the failures that are counted for the nodes of an account.
fn node_failures(txn: &Txn<'_>, account: &str) -> Result<Vec<keys::Key>, Fault> {
    let mut found = vec![];
    txn.scan(
        &keys::node_failures(account),
        |key, _| -> Result<_, Fault> {
            found.push(keys::Key(key.to_vec()));
            Ok(ControlFlow::Continue(()))
        },
    )?;
    Ok(found)
}

impl Embedded {
    /// Returns the hash of the password of an account.
    async fn stored_hash(&self, name: &str) -> Result<Option<String>, CredentialsError> {
        let key = keys::worker(name);
        let stored: Option<StoredWorker> = self
            .read::<_, CredentialsError>("look up a password", move |txn, _| Ok(txn.get(&key)?))
            .await?;
        Ok(stored.map(|worker| worker.password))
    }
}

#[async_trait]
impl Credentials for Embedded {
    #[tracing::instrument(
        name = "embedded.credentials.verify", level = "debug", skip_all,
        fields(worker.name = name)
    )]
    async fn verify(
        &self,
        name: &str,
        password: &str,
    ) -> Result<Option<LoginStamp>, CredentialsError> {
        let (stored, password) = (self.stored_hash(name).await?, password.to_owned());
        // Not within the read: the writer waits for reads, and hashing takes long on purpose.
        let verify = move || {
            password::matches(&password, stored.as_deref())
                .then(|| stored.as_deref().map(password::stamp))
        };
        let stamp = off_thread("check a password", verify).await?;
        Ok(stamp.flatten())
    }

    #[tracing::instrument(
        name = "embedded.credentials.stamp", level = "debug", skip_all,
        fields(worker.name = name)
    )]
    async fn stamp(&self, name: &str) -> Result<Option<LoginStamp>, CredentialsError> {
        let stored = self.stored_hash(name).await?;
        Ok(stored.as_deref().map(password::stamp))
    }

    #[tracing::instrument(
        name = "embedded.credentials.add", level = "debug", skip_all, fields(worker.name = name)
    )]
    async fn add(
        &self,
        name: &str,
        password: &str,
        link: Option<String>,
    ) -> Result<(), CredentialsError> {
        let (name, password) = (name.to_owned(), hash(password).await?);
        self.write("add a worker", move |txn, _| {
            let key = keys::worker(&name);
            if txn.get_bytes(&key)?.is_some() {
                return Err(CredentialsError::Exists(name));
            }
            Ok(txn.put(key, &StoredWorker { password, link })?)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.credentials.set_password", level = "debug", skip_all,
        fields(worker.name = name)
    )]
    async fn set_password(&self, name: &str, password: &str) -> Result<bool, CredentialsError> {
        let (key, password) = (keys::worker(name), hash(password).await?);
        self.write("set a password", move |txn, _| {
            let Some(worker) = txn.get::<StoredWorker>(&key)? else {
                return Ok(false);
            };
            txn.put(key, &StoredWorker { password, ..worker })?;
            Ok(true)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.credentials.remove", level = "debug", skip_all,
        fields(worker.name = name)
    )]
    async fn remove(&self, name: &str) -> Result<bool, CredentialsError> {
        let key = keys::worker(name);
        let last_seen = keys::worker_seen(name);
        let failures = keys::worker_failures(name);
        let name = name.to_owned();
        self.write("remove a worker", move |txn, _| {
            let existed = txn.get_bytes(&key)?.is_some();
            txn.delete(key);
            txn.delete(last_seen);
            txn.delete(failures);
            for key in node_failures(txn, &name)? {
                txn.delete(key);
            }
            Ok(existed)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.credentials.account", level = "debug", skip_all,
        fields(worker.name = name)
    )]
    async fn account(&self, name: &str) -> Result<Option<WorkerAccount>, CredentialsError> {
        let name = name.to_owned();
        self.read("look up a worker", move |txn, _| {
            let worker: Option<StoredWorker> = txn.get(&keys::worker(&name))?;
            Ok(worker
                .map(|worker| account(txn, name, worker))
                .transpose()?)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.credentials.failures", level = "debug", skip_all,
        fields(worker.name = counted_name)
    )]
    async fn failures(&self, counted_name: &str) -> Result<u32, CredentialsError> {
        let key = keys::worker_failures(counted_name);
        self.read("look up failures", move |txn, _| {
            Ok(u32::try_from(txn.number(&key)?).unwrap_or(u32::MAX))
        })
        .await
    }

    #[tracing::instrument(name = "embedded.credentials.list", level = "debug", skip_all)]
    async fn list(&self) -> Result<Vec<WorkerAccount>, CredentialsError> {
        self.read("list the workers", |txn, _| {
            let mut accounts = vec![];
            txn.scan(&keys::workers(), |key, value| -> Result<_, Fault> {
                let worker: StoredWorker = decode(value)?;
                let name = String::from_utf8_lossy(key.get(1..key.len() - 1).unwrap_or_default())
                    .into_owned();
                accounts.push(account(txn, name, worker)?);
                Ok(ControlFlow::Continue(()))
            })?;
            Ok(accounts)
        })
        .await
    }
}
