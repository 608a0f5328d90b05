//! A key-value store in memory, for tests and demonstrations: nothing outlives the process.

use super::embedded::{Batch, Kv, KvError, collect_range};
use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// A key-value store in memory.
#[derive(Debug, Default)]
pub struct MemoryKv {
    entries: RwLock<Entries>,
}

impl MemoryKv {
    fn entries(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kv for MemoryKv {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        Ok(self.entries().get(key).cloned())
    }

    fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>, KvError> {
        let stored = self.entries();
        let entries = stored.range::<[u8], _>((from, to));
        collect_range(entries.map(|(k, v)| Ok((k.clone(), v.clone()))), limit)
    }

    fn last(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<Option<(Vec<u8>, Vec<u8>)>, KvError> {
        Ok(self
            .entries()
            .range::<[u8], _>((from, to))
            .next_back()
            .map(|(k, v)| (k.clone(), v.clone())))
    }

    fn apply(&self, batch: Batch) -> Result<(), KvError> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in batch {
            match value {
                Some(value) => entries.insert(key, value),
                None => entries.remove(&key),
            };
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), KvError> {
        // There is nothing to make durable.
        Ok(())
    }
}
