//! A key-value store on sled: one directory, which one process has open at a time.

mod durable;

use super::embedded::{Batch, Entry, Kv, KvError};
use crate::ports::Fault;
use durable::SledFiles;
use std::{ops::Bound, path::Path};

/// How many bytes of pages are cached in memory.
const CACHE_BYTES: u64 = 32 << 20;

/// A sled database. All tables share one tree, since sled applies a batch atomically only within a
/// tree.
#[derive(Debug)]
pub struct SledKv {
    tree: sled::Db,
    files: SledFiles,
}

fn open(path: &Path) -> Result<SledKv, KvError> {
    let config = sled::Config::new()
        .path(path)
        .cache_capacity(CACHE_BYTES)
        // The writer flushes each batch before it replies, so flushes in the background would
        // only disturb.
        .flush_every_ms(None);
    Ok(SledKv {
        tree: config.open()?,
        files: SledFiles::open(path)?,
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
        open(path).map_err(|e| {
            let hint = format!(
                "{}: {e} (is another process using it? A store that was damaged is left as it is: \
                 restore it from a backup, or move it away)",
                path.display()
            );
            Fault::unavailable("open the sled database", hint)
        })
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
        let entries = self.tree.range::<&[u8], _>((from, to)).take(limit);
        Ok(entries
            .map(|entry| entry.map(|(k, v)| (k.to_vec(), v.to_vec())))
            .collect::<Result<_, _>>()?)
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
        let mut changes = sled::Batch::default();
        for (key, value) in batch {
            match value {
                Some(value) => changes.insert(key, value),
                None => changes.remove(key),
            }
        }
        Ok(self.tree.apply_batch(changes)?)
    }

    fn flush(&self) -> Result<(), KvError> {
        self.tree.flush()?;
        Ok(self.files.sync()?)
    }
}
