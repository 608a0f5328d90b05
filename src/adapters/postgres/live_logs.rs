//! Logs of active runs: a row with the size of each, which is locked while something is appended,
//! and rows with its content.

use super::{Postgres, error::Abort};
use crate::{
    domain::name::RunId,
    ports::{
        Fault, LiveLogs,
        live_logs::{Appended, MAX_LOGS},
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::PgConnection;

/// Maximum number of bytes in a row.
const BLOCK_SIZE: usize = 64 << 10;
/// Number of rows that are read at a time.
const READ_BATCH_SIZE: i64 = 16;

/// A log that is locked, and the others of its run.
#[derive(Debug)]
struct Locked {
    size: u64,
    size_of_others: u64,
    others: u64,
}

/// Locks a log; one that is not there has no bytes. Only what begins at the beginning creates a log,
/// so that a bit that comes after the run's logs were removed does not create one with a gap.
async fn lock(
    connection: &mut PgConnection,
    run: &RunId,
    name: &str,
    offset: u64,
) -> sqlx::Result<Locked> {
    let lock = match offset {
        0 => include_str!("sql/create_live_log.sql"),
        _ => include_str!("sql/lock_live_log.sql"),
    };
    let locked: Option<(i64, i64, i64)> = sqlx::query_as(lock)
        .bind(run.as_str())
        .bind(name)
        .fetch_optional(connection)
        .await?;
    let (size, size_of_others, others) = locked.unwrap_or_default();
    Ok(Locked {
        size: size.cast_unsigned(),
        size_of_others: size_of_others.cast_unsigned(),
        others: others.cast_unsigned(),
    })
}

/// Inserts the rows for bytes after the end of a log, and returns its new size.
async fn insert_blocks(
    connection: &mut PgConnection,
    run: &RunId,
    name: &str,
    size: u64,
    bytes: &[u8],
) -> sqlx::Result<u64> {
    let blocks: Vec<&[u8]> = bytes.chunks(BLOCK_SIZE).collect();
    let starts = blocks.iter().scan(size, |start, block| {
        let this = start.cast_signed();
        *start += block.len() as u64;
        Some(this)
    });
    let starts: Vec<i64> = starts.collect();
    sqlx::query(include_str!("sql/append_live_blocks.sql"))
        .bind(run.as_str())
        .bind(name)
        .bind(starts)
        .bind(blocks)
        .execute(&mut *connection)
        .await?;
    let size = size + bytes.len() as u64;
    let grow = "UPDATE runner_live_log SET size = $3 WHERE run_id = $1 AND name = $2";
    sqlx::query(grow)
        .bind(run.as_str())
        .bind(name)
        .bind(size.cast_signed())
        .execute(connection)
        .await?;
    Ok(size)
}

async fn append(
    connection: &mut PgConnection,
    run: &RunId,
    name: &str,
    offset: u64,
    bytes: &Bytes,
    max_total: u64,
) -> Result<Appended, Abort<Fault>> {
    let Locked {
        size,
        size_of_others,
        others,
    } = lock(&mut *connection, run, name, offset).await?;
    if offset > size {
        return Ok(Appended::Gap(size));
    }
    let total = size_of_others
        .saturating_add(offset)
        .saturating_add(bytes.len() as u64);
    let is_one_too_many = size == 0 && others >= MAX_LOGS as u64;
    if total > max_total || is_one_too_many {
        // A log that was created just now would be listed without ever having had a byte.
        let delete = "DELETE FROM runner_live_log WHERE run_id = $1 AND name = $2 AND size = 0";
        sqlx::query(delete)
            .bind(run.as_str())
            .bind(name)
            .execute(connection)
            .await?;
        return Ok(Appended::Full);
    }
    let known = usize::try_from(size - offset).unwrap_or(usize::MAX);
    let new = bytes.get(known..).unwrap_or_default();
    if new.is_empty() {
        return Ok(Appended::Size(size));
    }
    Ok(Appended::Size(
        insert_blocks(connection, run, name, size, new).await?,
    ))
}

#[async_trait]
impl LiveLogs for Postgres {
    #[tracing::instrument(
        level = "debug", name = "postgres.live_logs.append", skip_all,
        fields(run.id = %run, log = name, offset, bytes = bytes.len())
    )]
    async fn append(
        &self,
        run: &RunId,
        name: &str,
        offset: u64,
        bytes: Bytes,
        max_total: u64,
    ) -> Result<Appended, Fault> {
        self.tables
            .transaction("append to a log", |connection| {
                let (run, name, bytes) = (run.clone(), name.to_owned(), bytes.clone());
                Box::pin(
                    async move { append(connection, &run, &name, offset, &bytes, max_total).await },
                )
            })
            .await
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.live_logs.read", skip_all,
        fields(run.id = %run, log = name, offset)
    )]
    async fn read(
        &self,
        run: &RunId,
        name: &str,
        offset: u64,
        limit: usize,
    ) -> Result<Option<Bytes>, Fault> {
        let query = sqlx::query_as(include_str!("sql/read_live_log.sql"))
            .bind(run.as_str())
            .bind(name)
            .bind(i64::try_from(offset).unwrap_or(i64::MAX))
            .bind(READ_BATCH_SIZE);
        let rows = query.fetch_all(self.tables.connections());
        let rows: Vec<(i64, Option<i64>, Option<Vec<u8>>)> =
            self.tables.run("read a live log", rows).await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let mut found = vec![];
        for (_, start, content) in rows {
            let (Some(start), Some(content)) = (start, content) else {
                continue;
            };
            // The first block may begin before the offset.
            let skip = offset.saturating_sub(start.cast_unsigned());
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            let part = content.get(skip..).unwrap_or_default();
            found.extend_from_slice(part.get(..limit - found.len()).unwrap_or(part));
        }
        Ok(Some(found.into()))
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.live_logs.list", skip_all, fields(run.id = %run)
    )]
    async fn list(&self, run: &RunId) -> Result<Vec<(String, u64)>, Fault> {
        let query = sqlx::query_as(
            "SELECT name, size FROM runner_live_log WHERE run_id = $1 ORDER BY name COLLATE \"C\"",
        )
        .bind(run.as_str());
        let rows = query.fetch_all(self.tables.connections());
        let rows: Vec<(String, i64)> = self.tables.run("list live logs", rows).await?;
        Ok(rows
            .into_iter()
            .map(|(name, size)| (name, size.cast_unsigned()))
            .collect())
    }

    #[tracing::instrument(level = "debug", name = "postgres.live_logs.runs", skip_all)]
    async fn runs(&self) -> Result<Vec<RunId>, Fault> {
        let query =
            sqlx::query_scalar("SELECT DISTINCT run_id FROM runner_live_log ORDER BY run_id");
        let rows = query.fetch_all(self.tables.connections());
        let rows: Vec<String> = self.tables.run("list live logs", rows).await?;
        Ok(rows.into_iter().map(RunId::new).collect())
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.live_logs.remove", skip_all, fields(runs = runs.len())
    )]
    async fn remove(&self, runs: &[RunId]) -> Result<(), Fault> {
        let runs: Vec<_> = runs.iter().map(RunId::as_str).collect();
        let delete = sqlx::query("DELETE FROM runner_live_log WHERE run_id = ANY($1)").bind(runs);
        let deleted = delete.execute(self.tables.connections());
        self.tables.run("remove live logs", deleted).await.map(drop)
    }
}
