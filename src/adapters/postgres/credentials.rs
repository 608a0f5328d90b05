//! Workers' accounts, with passwords as pgcrypto writes them: what the Python runner made is read, and the other way round.

use super::Postgres;
use crate::{
    adapters::off_thread,
    ports::{Credentials, CredentialsError, Fault, credentials::WorkerAccount},
};
use async_trait::async_trait;
use bcrypt::{HashParts, Version};
use chrono::NaiveDateTime;
use std::str::FromStr;

/// Work of a new hash: 2^8 rounds take some 15 ms.
const COST: u32 = 8;
/// The hash that stands in for those who have none, so that the time tells nothing. Nobody knows its password.
const NOBODY: &str = "$2a$08$3lqI1SZ.6lcSwb4xu2fEb.GGmkgnE66C.NPWD5vqq24DVAHkdcs8a";

/// In place of the password of a worker that was removed: its row must stay, since runs name it.
const REMOVED: &str = "!removed";

type AccountRow = (String, Option<String>, Option<NaiveDateTime>, Option<i32>);

fn account((name, link, seen, failures): AccountRow) -> WorkerAccount {
    let failures = failures
        .and_then(|failures| u32::try_from(failures).ok())
        .unwrap_or_default();
    WorkerAccount {
        name,
        link,
        last_seen: seen.map(|time| time.and_utc()),
        failures,
    }
}

macro_rules! accounts {
    ($condition:literal) => {
        concat!(
            "SELECT worker.name, worker.link, seen.last_seen, seen.failures FROM worker LEFT JOIN runner_worker AS seen ON seen.name = worker.name
             WHERE worker.password <> $1",
            $condition
        )
    };
}

async fn hashed(password: &str) -> Result<String, Fault> {
    let password = password.to_owned();
    let hash = off_thread("hash a password", move || {
        bcrypt::hash_with_result(password, COST)
    })
    .await?;
    // pgcrypto knows only this one of the equivalent prefixes.
    Ok(hash
        .map_err(|e| Fault::backend("hash a password", e))?
        .format_for_version(Version::TwoA))
}

impl Postgres {
    /// Hashes of other kinds than bcrypt are left to pgcrypto.
    async fn verify_there(&self, password: &str, hash: &str) -> Result<bool, Fault> {
        let query = sqlx::query_scalar("SELECT crypt($1, $2) = $2")
            .bind(password)
            .bind(hash);
        let verified: Result<Option<bool>, Fault> = self
            .tables
            .ask("check a password", query.fetch_one(self.tables.link.pool()))
            .await;
        match verified {
            Ok(same) => Ok(same.unwrap_or(false)),
            // Not a hash of a kind that it knows: nobody can log in with that.
            Err(Fault::Backend { .. }) => Ok(false),
            Err(fault) => Err(fault),
        }
    }
}

#[async_trait]
impl Credentials for Postgres {
    async fn verify(&self, name: &str, password: &str) -> Result<bool, CredentialsError> {
        if name.contains('\0') || password.contains('\0') {
            return Ok(false);
        }
        let query = sqlx::query_scalar("SELECT password FROM worker WHERE name = $1").bind(name);
        let stored: Option<String> = self
            .tables
            .ask(
                "look up a password",
                query.fetch_optional(self.tables.link.pool()),
            )
            .await?;
        let known = stored.is_some();
        let hash = stored.unwrap_or_else(|| NOBODY.to_owned());
        if HashParts::from_str(&hash).is_err() {
            return Ok(self.verify_there(password, &hash).await?);
        }
        let password = password.to_owned();
        let same = off_thread("check a password", move || {
            bcrypt::verify(password, &hash).unwrap_or(false)
        })
        .await?;
        Ok(known && same)
    }

    async fn add(
        &self,
        name: &str,
        password: &str,
        link: Option<String>,
    ) -> Result<(), CredentialsError> {
        let insert = sqlx::query(
            "INSERT INTO worker (name, password, link) VALUES ($1, $2, $3)
             ON CONFLICT (name) DO UPDATE SET password = excluded.password, link = excluded.link WHERE worker.password = $4",
        );
        let insert = insert
            .bind(name)
            .bind(hashed(password).await?)
            .bind(link)
            .bind(REMOVED);
        let added = self
            .tables
            .ask("add a worker", insert.execute(self.tables.link.pool()))
            .await?;
        if added.rows_affected() == 0 {
            Err(CredentialsError::Exists(name.to_owned()))
        } else {
            Ok(())
        }
    }

    async fn set_password(&self, name: &str, password: &str) -> Result<bool, CredentialsError> {
        let update =
            sqlx::query("UPDATE worker SET password = $2 WHERE name = $1 AND password <> $3");
        let update = update
            .bind(name)
            .bind(hashed(password).await?)
            .bind(REMOVED);
        let set = self
            .tables
            .ask("set a password", update.execute(self.tables.link.pool()))
            .await?;
        Ok(set.rows_affected() > 0)
    }

    async fn remove(&self, name: &str) -> Result<bool, CredentialsError> {
        let pool = self.tables.link.pool();
        let delete = sqlx::query("DELETE FROM worker WHERE name = $1 AND password <> $2")
            .bind(name)
            .bind(REMOVED);
        let removed = match self
            .tables
            .ask("remove a worker", delete.execute(pool))
            .await
        {
            Err(fault) if has_runs(&fault) => {
                let close = sqlx::query(
                    "UPDATE worker SET password = $2 WHERE name = $1 AND password <> $2",
                )
                .bind(name)
                .bind(REMOVED);
                self.tables
                    .ask("remove a worker", close.execute(pool))
                    .await?
            }
            removed => removed?,
        };
        self.tables.forget_worker(name).await?;
        Ok(removed.rows_affected() > 0)
    }

    async fn account(&self, name: &str) -> Result<Option<WorkerAccount>, CredentialsError> {
        let query = sqlx::query_as(accounts!(" AND worker.name = $2"))
            .bind(REMOVED)
            .bind(name);
        Ok(self
            .tables
            .ask(
                "look up a worker",
                query.fetch_optional(self.tables.link.pool()),
            )
            .await?
            .map(account))
    }

    async fn list(&self) -> Result<Vec<WorkerAccount>, CredentialsError> {
        let query = sqlx::query_as(accounts!(" ORDER BY worker.name COLLATE \"C\"")).bind(REMOVED);
        let rows: Vec<AccountRow> = self
            .tables
            .ask("list the workers", query.fetch_all(self.tables.link.pool()))
            .await?;
        Ok(rows.into_iter().map(account).collect())
    }
}

/// Runs name their worker: such a worker's row must stay.
fn has_runs(fault: &Fault) -> bool {
    super::answer_of(fault).is_some_and(sqlx::error::DatabaseError::is_foreign_key_violation)
}
