//! Workers' accounts, with passwords as pgcrypto writes them: accounts of the Python runner work
//! here, and the other way round.

use super::{Postgres, error::database_error};
use crate::{
    adapters::{off_thread, support::password},
    ports::{
        Credentials, CredentialsError, Fault,
        credentials::{LoginStamp, WorkerAccount},
    },
};
use async_trait::async_trait;
use bcrypt::{HashParts, Version};
use chrono::NaiveDateTime;
use sqlx::error::DatabaseError;
use std::str::FromStr;

/// The cost of a new hash: 2^8 rounds take some 15 ms.
const HASH_COST: u32 = 8;
/// In place of the password of a worker that was removed: its row must stay, since runs name it.
const REMOVED: &str = "!removed";

/// Name, link, time last seen and failures in a row of a worker.
type AccountRow = (String, Option<String>, Option<NaiveDateTime>, Option<i32>);

fn account((name, link, last_seen, failures): AccountRow) -> WorkerAccount {
    let failures = failures
        .and_then(|failures| u32::try_from(failures).ok())
        .unwrap_or_default();
    WorkerAccount {
        name,
        link,
        last_seen: last_seen.map(|time| time.and_utc()),
        failures,
    }
}

async fn hash(password: &str) -> Result<String, Fault> {
    let password = password.to_owned();
    let hash = off_thread("hash a password", move || {
        bcrypt::hash_with_result(password, HASH_COST)
    })
    .await?;
    // pgcrypto knows only this one of the equivalent prefixes.
    Ok(hash
        .map_err(|e| Fault::backend("hash a password", e))?
        .format_for_version(Version::TwoA))
}

/// Returns whether a password has a bcrypt hash, and whether that is weaker than new ones.
///
/// A weaker hash is followed by others of the same password, whose costs add up to that of a new
/// one, and no hash is one of a new one: the time taken is the same, whether there is an account,
/// and whoever made its hash.
async fn check_bcrypt(password: String, stored: Option<String>) -> Result<(bool, bool), Fault> {
    off_thread("check a password", move || {
        let Some(stored) = stored else {
            drop(bcrypt::hash_with_result(&password, HASH_COST));
            return (false, false);
        };
        let is_right = bcrypt::verify(&password, &stored).unwrap_or(false);
        let cost = HashParts::from_str(&stored).map_or(HASH_COST, |parts| parts.get_cost());
        for cost in cost..HASH_COST {
            drop(bcrypt::hash_with_result(&password, cost));
        }
        (is_right, cost < HASH_COST)
    })
    .await
}

/// Whether a row must stay because runs refer to it.
fn has_runs(fault: &Fault) -> bool {
    database_error(fault).is_some_and(DatabaseError::is_foreign_key_violation)
}

impl Postgres {
    /// Returns the hash of the password of an account.
    async fn stored_hash(&self, name: &str) -> Result<Option<String>, Fault> {
        // Postgres refuses texts with NUL; no account can have them.
        if name.contains('\0') {
            return Ok(None);
        }
        let query = sqlx::query_scalar("SELECT password FROM worker WHERE name = $1").bind(name);
        let stored = query.fetch_optional(self.tables.connections());
        let stored: Option<String> = self.tables.run("look up a password", stored).await?;
        Ok(stored.filter(|stored| stored != REMOVED))
    }

    /// Replaces a weak hash of a password that was just given; returns the new one, unless the
    /// account was changed meanwhile.
    async fn renew(&self, name: &str, password: &str, old: &str) -> Result<Option<String>, Fault> {
        let new = hash(password).await?;
        let update =
            sqlx::query("UPDATE worker SET password = $2 WHERE name = $1 AND password = $3")
                .bind(name)
                .bind(&new)
                .bind(old);
        let renewed = update.execute(self.tables.connections());
        let renewed = self.tables.run("renew a hash", renewed).await?;
        Ok((renewed.rows_affected() > 0).then_some(new))
    }

    /// Verifies hashes of other kinds than bcrypt, by pgcrypto.
    async fn verify_by_pgcrypto(&self, password: &str, hash: &str) -> Result<bool, Fault> {
        let query = sqlx::query_scalar("SELECT crypt($1, $2) = $2")
            .bind(password)
            .bind(hash);
        let verified = query.fetch_one(self.tables.connections());
        let verified: Result<Option<bool>, Fault> =
            self.tables.run("check a password", verified).await;
        match verified {
            Ok(same) => Ok(same.unwrap_or(false)),
            // The stored text is no hash of a kind that pgcrypto knows: nobody can log in with it.
            Err(Fault::Backend { .. }) => Ok(false),
            Err(fault) => Err(fault),
        }
    }
}

#[async_trait]
impl Credentials for Postgres {
    #[tracing::instrument(
        level = "debug", name = "postgres.credentials.verify", skip_all, fields(worker = name)
    )]
    async fn verify(
        &self,
        name: &str,
        password: &str,
    ) -> Result<Option<LoginStamp>, CredentialsError> {
        let stored = self.stored_hash(name).await?;
        // Postgres refuses texts with NUL; no account can have them.
        let (tried, has_nul) = (password.replace('\0', ""), password.contains('\0'));
        let (is_right, is_weak) = match &stored {
            Some(hash) if HashParts::from_str(hash).is_err() => {
                let is_right = self.verify_by_pgcrypto(&tried, hash).await?;
                check_bcrypt(tried, None).await?;
                (is_right, true)
            }
            stored => check_bcrypt(tried, stored.clone()).await?,
        };
        let Some(stored) = stored.filter(|_| is_right && !has_nul) else {
            return Ok(None);
        };
        let renewed = match is_weak {
            true => self.renew(name, password, &stored).await?,
            false => None,
        };
        Ok(Some(password::stamp(&renewed.unwrap_or(stored))))
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.credentials.stamp", skip_all, fields(worker = name)
    )]
    async fn stamp(&self, name: &str) -> Result<Option<LoginStamp>, CredentialsError> {
        let stored = self.stored_hash(name).await?;
        Ok(stored.as_deref().map(password::stamp))
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.credentials.add", skip_all, fields(worker = name)
    )]
    async fn add(
        &self,
        name: &str,
        password: &str,
        link: Option<String>,
    ) -> Result<(), CredentialsError> {
        let insert = sqlx::query(include_str!("sql/add_worker.sql"))
            .bind(name)
            .bind(hash(password).await?)
            .bind(link)
            .bind(REMOVED);
        let added = insert.execute(self.tables.connections());
        let added = self.tables.run("add a worker", added).await?;
        if added.rows_affected() == 0 {
            Err(CredentialsError::Exists(name.to_owned()))
        } else {
            Ok(())
        }
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.credentials.set_password", skip_all,
        fields(worker = name)
    )]
    async fn set_password(&self, name: &str, password: &str) -> Result<bool, CredentialsError> {
        let update =
            sqlx::query("UPDATE worker SET password = $2 WHERE name = $1 AND password <> $3")
                .bind(name)
                .bind(hash(password).await?)
                .bind(REMOVED);
        let set = update.execute(self.tables.connections());
        let set = self.tables.run("set a password", set).await?;
        Ok(set.rows_affected() > 0)
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.credentials.remove", skip_all, fields(worker = name)
    )]
    async fn remove(&self, name: &str) -> Result<bool, CredentialsError> {
        let connections = self.tables.connections();
        let delete = sqlx::query("DELETE FROM worker WHERE name = $1 AND password <> $2")
            .bind(name)
            .bind(REMOVED);
        let deleted = self
            .tables
            .run("remove a worker", delete.execute(connections))
            .await;
        let removed = match deleted {
            Err(fault) if has_runs(&fault) => {
                let close = sqlx::query(
                    "UPDATE worker SET password = $2 WHERE name = $1 AND password <> $2",
                )
                .bind(name)
                .bind(REMOVED);
                self.tables
                    .run("remove a worker", close.execute(connections))
                    .await?
            }
            deleted => deleted?,
        };
        self.tables.forget_worker(name).await?;
        Ok(removed.rows_affected() > 0)
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.credentials.account", skip_all, fields(worker = name)
    )]
    async fn account(&self, name: &str) -> Result<Option<WorkerAccount>, CredentialsError> {
        let query = sqlx::query_as(include_str!("sql/find_worker.sql"))
            .bind(REMOVED)
            .bind(name);
        let row = query.fetch_optional(self.tables.connections());
        Ok(self.tables.run("look up a worker", row).await?.map(account))
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.credentials.failures", skip_all,
        fields(worker = counted_name)
    )]
    async fn failures(&self, counted_name: &str) -> Result<u32, CredentialsError> {
        let query = sqlx::query_scalar("SELECT failures FROM runner_worker WHERE name = $1")
            .bind(counted_name);
        let failures = query.fetch_optional(self.tables.connections());
        let failures: Option<i32> = self.tables.run("look up failures", failures).await?;
        Ok(failures
            .and_then(|failures| u32::try_from(failures).ok())
            .unwrap_or_default())
    }

    #[tracing::instrument(level = "debug", name = "postgres.credentials.list", skip_all)]
    async fn list(&self) -> Result<Vec<WorkerAccount>, CredentialsError> {
        let query = sqlx::query_as(include_str!("sql/list_workers.sql")).bind(REMOVED);
        let rows = query.fetch_all(self.tables.connections());
        let rows: Vec<AccountRow> = self.tables.run("list the workers", rows).await?;
        Ok(rows.into_iter().map(account).collect())
    }
}
