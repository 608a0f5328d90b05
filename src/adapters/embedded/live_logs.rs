//! Logs of active runs on the embedded stores.
//!
//! A log is stored in blocks of equal size, so that an append rewrites at most one block, and a
//! read computes the block that it starts in.

use super::{
    keys,
    store::Embedded,
    txn::{Txn, decode},
};
use crate::{
    domain::name::RunId,
    ports::{
        Fault, LiveLogs,
        live_logs::{Appended, MAX_LOGS},
    },
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{collections::BTreeSet, ops::ControlFlow};

/// The size of a block in bytes.
const BLOCK_SIZE: u64 = 16 << 10;

/// Returns the block that holds an offset, and the offset within it.
fn block_of(offset: u64) -> (u64, usize) {
    (offset / BLOCK_SIZE, (offset % BLOCK_SIZE) as usize)
}

/// Appends bytes that start at `offset`; those that the log has already are skipped.
fn append(
    txn: &mut Txn<'_>,
    run: &RunId,
    name: &str,
    offset: u64,
    bytes: &[u8],
    max_total: u64,
) -> Result<Appended, Fault> {
    let key = keys::live_log(run, name);
    let mut size = txn.number(&key)?;
    if offset > size {
        return Ok(Appended::Gap(size));
    }
    let mut others = list(txn, run)?;
    others.retain(|(other, _)| other != name);
    let total = others
        .iter()
        .map(|(_, size)| *size)
        .fold(bytes.len() as u64, u64::saturating_add)
        .saturating_add(offset);
    if total > max_total || (size == 0 && others.len() >= MAX_LOGS) {
        return Ok(Appended::Full);
    }
    let known = usize::try_from(size - offset).unwrap_or(usize::MAX);
    let mut new = bytes.get(known..).unwrap_or_default();
    while !new.is_empty() {
        let (number, at) = block_of(size);
        let key = keys::live_block(run, name, number);
        let mut block = if at == 0 {
            vec![]
        } else {
            txn.get_bytes(&key)?.unwrap_or_default()
        };
        let (fits, rest) = new.split_at(
            new.len()
                .min(usize::try_from(BLOCK_SIZE).unwrap_or(usize::MAX) - at),
        );
        block.extend_from_slice(fits);
        txn.put_bytes(key, block);
        size += fits.len() as u64;
        new = rest;
    }
    txn.put(key, &size)?;
    Ok(Appended::Size(size))
}

fn read(
    txn: &Txn<'_>,
    run: &RunId,
    name: &str,
    mut offset: u64,
    limit: usize,
) -> Result<Option<Bytes>, Fault> {
    let Some(size) = txn.get::<u64>(&keys::live_log(run, name))? else {
        return Ok(None);
    };
    let mut found = vec![];
    while offset < size && found.len() < limit {
        let (number, at) = block_of(offset);
        let block = txn
            .get_bytes(&keys::live_block(run, name, number))?
            .unwrap_or_default();
        let part = block.get(at..).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        let part = part.get(..limit - found.len()).unwrap_or(part);
        found.extend_from_slice(part);
        offset += part.len() as u64;
    }
    Ok(Some(found.into()))
}

fn list(txn: &Txn<'_>, run: &RunId) -> Result<Vec<(String, u64)>, Fault> {
    let mut logs = vec![];
    txn.scan(&keys::live_logs_of(run), |key, value| -> Result<_, Fault> {
        if let Some(name) = texts_of(key).into_iter().nth(1) {
            logs.push((name, decode(value)?));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(logs)
}

/// Splits a key into its texts, without the table's letter. Names of logs and runs have no bytes
/// that `keys` escapes.
fn texts_of(key: &[u8]) -> Vec<String> {
    key.get(1..)
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

#[async_trait]
impl LiveLogs for Embedded {
    #[tracing::instrument(
        name = "embedded.live_logs.append", level = "debug", skip_all, fields(run.id = %run)
    )]
    async fn append(
        &self,
        run: &RunId,
        name: &str,
        offset: u64,
        bytes: Bytes,
        max_total: u64,
    ) -> Result<Appended, Fault> {
        let (run, name) = (run.clone(), name.to_owned());
        self.write("append to a log", move |txn, _| {
            append(txn, &run, &name, offset, &bytes, max_total)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.live_logs.read", level = "debug", skip_all, fields(run.id = %run)
    )]
    async fn read(
        &self,
        run: &RunId,
        name: &str,
        offset: u64,
        limit: usize,
    ) -> Result<Option<Bytes>, Fault> {
        let (run, name) = (run.clone(), name.to_owned());
        Embedded::read(self, "read a live log", move |txn, _| {
            read(txn, &run, &name, offset, limit)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.live_logs.list", level = "debug", skip_all, fields(run.id = %run)
    )]
    async fn list(&self, run: &RunId) -> Result<Vec<(String, u64)>, Fault> {
        let run = run.clone();
        Embedded::read(self, "list live logs", move |txn, _| list(txn, &run)).await
    }

    #[tracing::instrument(name = "embedded.live_logs.runs", level = "debug", skip_all)]
    async fn runs(&self) -> Result<Vec<RunId>, Fault> {
        Embedded::read(self, "list live logs", |txn, _| {
            let mut runs = BTreeSet::new();
            txn.scan(&keys::live_logs(), |key, _| -> Result<_, Fault> {
                runs.extend(texts_of(key).into_iter().next().map(RunId::new));
                Ok(ControlFlow::Continue(()))
            })?;
            Ok(runs.into_iter().collect())
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.live_logs.remove", level = "debug", skip_all, fields(runs = runs.len())
    )]
    async fn remove(&self, runs: &[RunId]) -> Result<(), Fault> {
        let runs = runs.to_vec();
        self.write("remove live logs", move |txn, _| {
            for prefix in runs
                .iter()
                .flat_map(|run| [keys::live_logs_of(run), keys::live_blocks_of(run)])
            {
                let mut removed = vec![];
                txn.scan(&prefix, |key, _| -> Result<_, Fault> {
                    removed.push(keys::Key(key.to_vec()));
                    Ok(ControlFlow::Continue(()))
                })?;
                for key in removed {
                    txn.delete(key);
                }
            }
            Ok(())
        })
        .await
    }
}
