//! Workers' accounts on the embedded stores.

use super::{
    Embedded, keys,
    records::{Moment, StoredWorker},
    txn::{Txn, decode},
};
use crate::{
    adapters::{off_thread, support::password},
    ports::{Credentials, CredentialsError, Fault, credentials::WorkerAccount},
};
use async_trait::async_trait;
use std::ops::ControlFlow;

/// Hashes off the async threads: it takes tens of milliseconds on purpose.
async fn hashed(plain: &str) -> Result<String, Fault> {
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

#[async_trait]
impl Credentials for Embedded {
    async fn verify(&self, name: &str, password: &str) -> Result<bool, CredentialsError> {
        let (key, password) = (keys::worker(name), password.to_owned());
        let stored = self
            .read::<_, CredentialsError>("look up a password", move |txn, _| {
                Ok(txn.get::<StoredWorker>(&key)?)
            })
            .await?;
        // After the read, which keeps the writer waiting: hashing takes long on purpose.
        let check = move || {
            password::matches(
                &password,
                stored.as_ref().map(|worker| worker.password.as_str()),
            )
        };
        Ok(off_thread("check a password", check).await?)
    }

    async fn add(
        &self,
        name: &str,
        password: &str,
        link: Option<String>,
    ) -> Result<(), CredentialsError> {
        let (name, password) = (name.to_owned(), hashed(password).await?);
        self.write("add a worker", move |txn, _| {
            let key = keys::worker(&name);
            if txn.get_bytes(&key)?.is_some() {
                return Err(CredentialsError::Exists(name));
            }
            Ok(txn.put(key, &StoredWorker { password, link })?)
        })
        .await
    }

    async fn set_password(&self, name: &str, password: &str) -> Result<bool, CredentialsError> {
        let (key, password) = (keys::worker(name), hashed(password).await?);
        self.write("set a password", move |txn, _| {
            let Some(worker) = txn.get::<StoredWorker>(&key)? else {
                return Ok(false);
            };
            txn.put(key, &StoredWorker { password, ..worker })?;
            Ok(true)
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<bool, CredentialsError> {
        let (key, seen, failures) = (
            keys::worker(name),
            keys::worker_seen(name),
            keys::worker_failures(name),
        );
        self.write("remove a worker", move |txn, _| {
            let known = txn.get_bytes(&key)?.is_some();
            txn.delete(key);
            txn.delete(seen);
            txn.delete(failures);
            Ok(known)
        })
        .await
    }

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
