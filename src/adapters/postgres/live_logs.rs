//! Logs of active runs: a row with the size of each, which is locked while something is added, and rows with its content.

use super::{Abort, Postgres};
use crate::{
    domain::name::RunId,
    ports::{Fault, LiveLogs, live_logs::Appended},
};
use async_trait::async_trait;
use bytes::Bytes;
use sqlx::PgConnection;

/// The content of a row, at the most, and the rows that are read at once.
const BLOCK: usize = 64 << 10;
const BLOCKS_AT_ONCE: i64 = 16;

async fn append(
    connection: &mut PgConnection,
    run: &RunId,
    name: &str,
    offset: u64,
    bytes: &Bytes,
    room: u64,
) -> Result<Appended, Abort<Fault>> {
    // Only a beginning makes a log.
    let lock = match offset {
        0 => {
            "INSERT INTO runner_live_log AS log (run_id, name, size) VALUES ($1, $2, 0)
             ON CONFLICT (run_id, name) DO UPDATE SET size = log.size
             RETURNING size, (SELECT coalesce(sum(size), 0)::bigint FROM runner_live_log WHERE run_id = $1 AND name <> $2)"
        }
        _ => {
            "SELECT size, (SELECT coalesce(sum(size), 0)::bigint FROM runner_live_log WHERE run_id = $1 AND name <> $2)
             FROM runner_live_log WHERE run_id = $1 AND name = $2 FOR UPDATE"
        }
    };
    let sizes: Option<(i64, i64)> = sqlx::query_as(lock)
        .bind(run.as_str())
        .bind(name)
        .fetch_optional(&mut *connection)
        .await?;
    let (size, others) = sizes.map_or((0, 0), |(size, others)| {
        (size.cast_unsigned(), others.cast_unsigned())
    });
    if offset > size {
        return Ok(Appended::Gap(size));
    }
    if others
        .saturating_add(offset)
        .saturating_add(bytes.len() as u64)
        > room
    {
        let unmake = "DELETE FROM runner_live_log WHERE run_id = $1 AND name = $2 AND size = 0";
        sqlx::query(unmake)
            .bind(run.as_str())
            .bind(name)
            .execute(connection)
            .await?;
        return Ok(Appended::Full);
    }
    let new = bytes
        .get(usize::try_from(size - offset).unwrap_or(usize::MAX)..)
        .unwrap_or_default();
    if new.is_empty() {
        return Ok(Appended::Size(size));
    }
    let blocks: Vec<&[u8]> = new.chunks(BLOCK).collect();
    let starts = blocks.iter().scan(size, |start, block| {
        let this = start.cast_signed();
        *start += block.len() as u64;
        Some(this)
    });
    let starts: Vec<i64> = starts.collect();
    let insert = "INSERT INTO runner_live_block (run_id, name, start, content) SELECT $1, $2, * FROM unnest($3::bigint[], $4::bytea[])";
    sqlx::query(insert)
        .bind(run.as_str())
        .bind(name)
        .bind(starts)
        .bind(blocks)
        .execute(&mut *connection)
        .await?;
    let size = size + new.len() as u64;
    let grow = "UPDATE runner_live_log SET size = $3 WHERE run_id = $1 AND name = $2";
    sqlx::query(grow)
        .bind(run.as_str())
        .bind(name)
        .bind(size.cast_signed())
        .execute(connection)
        .await?;
    Ok(Appended::Size(size))
}

#[async_trait]
impl LiveLogs for Postgres {
    async fn append(
        &self,
        run: &RunId,
        name: &str,
        offset: u64,
        bytes: Bytes,
        room: u64,
    ) -> Result<Appended, Fault> {
        self.tables
            .transaction("append to a log", |connection| {
                let (run, name, bytes) = (run.clone(), name.to_owned(), bytes.clone());
                Box::pin(async move { append(connection, &run, &name, offset, &bytes, room).await })
            })
            .await
    }

    async fn read(
        &self,
        run: &RunId,
        name: &str,
        offset: u64,
        limit: usize,
    ) -> Result<Option<Bytes>, Fault> {
        let query = sqlx::query_as(
            "SELECT log.size, block.start, block.content FROM runner_live_log AS log
             LEFT JOIN LATERAL (SELECT start, content FROM runner_live_block WHERE run_id = $1 AND name = $2 AND start >= coalesce(
                 (SELECT max(start) FROM runner_live_block WHERE run_id = $1 AND name = $2 AND start <= $3), 0) ORDER BY start LIMIT $4) AS block ON true
             WHERE log.run_id = $1 AND log.name = $2 ORDER BY block.start",
        );
        let query = query
            .bind(run.as_str())
            .bind(name)
            .bind(i64::try_from(offset).unwrap_or(i64::MAX))
            .bind(BLOCKS_AT_ONCE);
        let rows: Vec<(i64, Option<i64>, Option<Vec<u8>>)> = self
            .tables
            .ask("read a live log", query.fetch_all(self.tables.link.pool()))
            .await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let mut found = vec![];
        for (_, start, content) in rows {
            let (Some(start), Some(content)) = (start, content) else {
                continue;
            };
            let skip =
                usize::try_from(offset.saturating_sub(start.cast_unsigned())).unwrap_or(usize::MAX);
            let part = content.get(skip..).unwrap_or_default();
            found.extend_from_slice(part.get(..limit - found.len()).unwrap_or(part));
        }
        Ok(Some(found.into()))
    }

    async fn list(&self, run: &RunId) -> Result<Vec<(String, u64)>, Fault> {
        let query = sqlx::query_as(
            "SELECT name, size FROM runner_live_log WHERE run_id = $1 ORDER BY name COLLATE \"C\"",
        )
        .bind(run.as_str());
        let rows: Vec<(String, i64)> = self
            .tables
            .ask("list live logs", query.fetch_all(self.tables.link.pool()))
            .await?;
        Ok(rows
            .into_iter()
            .map(|(name, size)| (name, size.cast_unsigned()))
            .collect())
    }

    async fn runs(&self) -> Result<Vec<RunId>, Fault> {
        let query =
            sqlx::query_scalar("SELECT DISTINCT run_id FROM runner_live_log ORDER BY run_id");
        let rows: Vec<String> = self
            .tables
            .ask("list live logs", query.fetch_all(self.tables.link.pool()))
            .await?;
        Ok(rows.into_iter().map(RunId::new).collect())
    }

    async fn remove(&self, runs: &[RunId]) -> Result<(), Fault> {
        let runs: Vec<_> = runs.iter().map(RunId::as_str).collect();
        let delete = sqlx::query("DELETE FROM runner_live_log WHERE run_id = ANY($1)").bind(runs);
        self.tables
            .ask("remove live logs", delete.execute(self.tables.link.pool()))
            .await
            .map(drop)
    }
}
