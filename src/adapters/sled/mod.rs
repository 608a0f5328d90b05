//! A key-value store on sled: one directory, which one process has open at a time.

mod acknowledged;
mod durable;

use super::embedded::{Batch, Entry, Kv, KvError, collect_range, open_engine};
use crate::ports::Fault;
use acknowledged::Acknowledged;
use durable::SledFiles;
use std::{
    ops::Bound,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// How many bytes of pages are cached in memory.
const CACHE_BYTES: u64 = 32 << 20;
/// The key of the number of batches that were applied. No table has keys that begin like it.
const SEQUENCE_KEY: &[u8] = b"\xffsequence";

/// A sled database. All tables share one tree, since sled applies a batch atomically only within a
/// tree.
#[derive(Debug)]
pub struct SledKv {
    tree: sled::Db,
    files: SledFiles,
    /// How many batches were applied.
    sequence: AtomicU64,
    acknowledged: Acknowledged,
}

fn open(path: &Path) -> Result<SledKv, KvError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        // The writer flushes each batch before it replies, so flushes in the background would
        // only disturb.
        .flush_every_ms(None);
    let acknowledged = Acknowledged::open(path)?;
    let tree = config.open()?;
    let sequence = match tree.get(SEQUENCE_KEY)? {
        Some(bytes) => u64::from_be_bytes(bytes.as_ref().try_into()?),
        None => 0,
    };
    acknowledged.check(sequence)?;
    Ok(SledKv {
        tree,
        files: SledFiles::open(path)?,
        sequence: AtomicU64::new(sequence),
        acknowledged,
    })
}

impl SledKv {
    /// Opens the database in a directory, which is created if needed.
    ///
    /// # Errors
    ///
    /// Returns [`Fault::Unavailable`] when another process has it open or it cannot be read;
    /// nothing is repaired or deleted.
    pub fn open(path: &Path) -> Result<Self, Fault> {
        open_engine("open the sled database", path, || open(path))
    }
}

impl Kv for SledKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.tree.get(key)?.map(|value| value.to_vec()))
    }

    fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError> {
        let entries = self.tree.range::<&[u8], _>((from, to));
        let entries = entries.map(|entry| {
            let (key, value) = entry?;
            Ok((key.to_vec(), value.to_vec()))
        });
        collect_range(entries, limit)
    }

    fn last(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Result<Option<Entry>, KvError> {
        let last = self
            .tree
            .range::<&[u8], _>((from, to))
            .next_back()
            .transpose()?;
        Ok(last.map(|(k, v)| (k.to_vec(), v.to_vec())))
    }

    fn apply(&self, batch: Batch) -> Result<(), KvError> {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed) + 1;
        let mut changes = sled::Batch::default();
        changes.insert(SEQUENCE_KEY, &sequence.to_be_bytes());
        for (key, value) in batch {
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        Ok(self.tree.apply_batch(changes)?)
    }

    fn flush(&self) -> Result<(), KvError> {
        // Of a batch that is applied meanwhile it is not known whether it is durable.
        let sequence = self.sequence.load(Ordering::Relaxed);
        self.tree.flush()?;
        self.files.sync()?;
        Ok(self.acknowledged.set(sequence)?)
    }
}
