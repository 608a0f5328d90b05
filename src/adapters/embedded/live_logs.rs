//! Logs of active runs on the embedded stores, in blocks of one size, so that a place in a log is found at once.

use super::{Embedded, keys, txn::Txn};
use crate::{
    domain::name::RunId,
    ports::{Fault, LiveLogs, live_logs::Appended},
};
use async_trait::async_trait;
use bytes::Bytes;
use std::{collections::BTreeSet, ops::ControlFlow};

const BLOCK: u64 = 16 << 10;

/// A place in a log: the block, and where in it.
fn place(offset: u64) -> (u64, usize) {
    (offset / BLOCK, (offset % BLOCK) as usize)
}

fn append(
    txn: &mut Txn<'_>,
    run: &RunId,
    name: &str,
    offset: u64,
    bytes: &[u8],
    room: u64,
) -> Result<Appended, Fault> {
    let key = keys::live_log(run, name);
    let mut size = txn.number(&key)?;
    if offset > size {
        return Ok(Appended::Gap(size));
    }
    let others: u64 = list(txn, run)?
        .into_iter()
        .filter(|(other, _)| other != name)
        .map(|(_, size)| size)
        .sum();
    if others
        .saturating_add(offset)
        .saturating_add(bytes.len() as u64)
        > room
    {
        return Ok(Appended::Full);
    }
    let known = usize::try_from(size - offset).unwrap_or(usize::MAX);
    let mut new = bytes.get(known..).unwrap_or_default();
    while !new.is_empty() {
        let (number, at) = place(size);
        let key = keys::live_block(run, name, number);
        let mut block = if at == 0 {
            vec![]
        } else {
            txn.get_bytes(&key)?.unwrap_or_default()
        };
        let (fits, rest) = new.split_at(
            new.len()
                .min(usize::try_from(BLOCK).unwrap_or(usize::MAX) - at),
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
        let (number, at) = place(offset);
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
        if let Some(name) = parts(key).into_iter().nth(1) {
            logs.push((name, super::txn::decode(value)?));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(logs)
}

/// The text that a key has after its table's letter, part by part. Names of logs and runs have no bytes that are escaped.
fn parts(key: &[u8]) -> Vec<String> {
    key.get(1..)
        .unwrap_or_default()
        .split(|byte| *byte == 0)
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect()
}

#[async_trait]
impl LiveLogs for Embedded {
    async fn append(
        &self,
        run: &RunId,
        name: &str,
        offset: u64,
        bytes: Bytes,
        room: u64,
    ) -> Result<Appended, Fault> {
        let (run, name) = (run.clone(), name.to_owned());
        self.write("append to a log", move |txn, _| {
            append(txn, &run, &name, offset, &bytes, room)
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
        let (run, name) = (run.clone(), name.to_owned());
        Embedded::read(self, "read a live log", move |txn, _| {
            read(txn, &run, &name, offset, limit)
        })
        .await
    }

    async fn list(&self, run: &RunId) -> Result<Vec<(String, u64)>, Fault> {
        let run = run.clone();
        Embedded::read(self, "list live logs", move |txn, _| list(txn, &run)).await
    }

    async fn runs(&self) -> Result<Vec<RunId>, Fault> {
        Embedded::read(self, "list live logs", |txn, _| {
            let mut runs = BTreeSet::new();
            txn.scan(&keys::live_logs(), |key, _| -> Result<_, Fault> {
                runs.extend(parts(key).into_iter().next().map(RunId::new));
                Ok(ControlFlow::Continue(()))
            })?;
            Ok(runs.into_iter().collect())
        })
        .await
    }

    async fn remove(&self, runs: &[RunId]) -> Result<(), Fault> {
        let runs = runs.to_vec();
        self.write("remove live logs", move |txn, _| {
            for prefix in runs
                .iter()
                .flat_map(|run| [keys::live_logs_of(run), keys::live_blocks_of(run)])
            {
                let mut gone = vec![];
                txn.scan(&prefix, |key, _| -> Result<_, Fault> {
                    gone.push(keys::Key(key.to_vec()));
                    Ok(ControlFlow::Continue(()))
                })?;
                for key in gone {
                    txn.delete(key);
                }
            }
            Ok(())
        })
        .await
    }
}
