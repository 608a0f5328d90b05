//! A view of the key-value store with staged changes on top.
//!
//! A command reads what earlier commands of its batch have written, although the store does not
//! have it yet: each read looks at the staged changes first, and scans merge the two in key order.

use super::{
    keys::Key,
    kv::{Batch, Entry, Kv, KvError, MAX_RANGE_SIZE},
};
use crate::ports::Fault;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::VecDeque,
    ops::{Bound, ControlFlow},
};

/// The new value of a key; `None` deletes the key.
type Change = Option<Vec<u8>>;

/// How many entries a scan fetches at first: few, since most scans want one.
const MIN_FETCH: usize = 8;
/// How many entries a scan fetches at a time when it goes on.
const MAX_FETCH: usize = 1024;
/// How many records one read returns, so that a long list does not keep the writer waiting.
const PAGE_SIZE: usize = 1000;

/// Staged changes on top of the store. Without changes it is just a view.
pub(super) struct Txn<'a> {
    kv: &'a dyn Kv,
    changes: Batch,
    /// What the current command replaced in `changes`, in order, so that it alone can be undone.
    replaced: Vec<(Vec<u8>, Option<Change>)>,
}

fn read_failed(error: impl Into<KvError>) -> Fault {
    Fault::backend("read the store", error)
}

/// Returns the end of the range of keys that start with `prefix`.
fn after_prefix(prefix: &[u8]) -> Bound<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Bound::Excluded(end);
        }
    }
    Bound::Unbounded
}

impl<'a> Txn<'a> {
    /// Creates a view without changes.
    pub(super) fn new(kv: &'a dyn Kv) -> Self {
        Self {
            kv,
            changes: Batch::new(),
            replaced: vec![],
        }
    }

    /// Returns all accepted changes.
    pub(super) fn into_batch(self) -> Batch {
        self.changes
    }

    /// Keeps the changes of the current command; they can no longer be rolled back.
    pub(super) fn accept(&mut self) {
        self.replaced.clear();
    }

    /// Undoes the changes of the current command; those of earlier commands stay.
    pub(super) fn roll_back(&mut self) {
        // The newest first: a key that was set twice gets its first value back last.
        for (key, earlier) in self.replaced.drain(..).rev() {
            match earlier {
                Some(value) => self.changes.insert(key, value),
                None => self.changes.remove(&key),
            };
        }
    }

    fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        let earlier = self.changes.insert(key.clone(), value);
        self.replaced.push((key, earlier));
    }

    /// Stages a value as it is.
    pub(super) fn put_bytes(&mut self, key: Key, value: Vec<u8>) {
        self.set(key.0, Some(value));
    }

    /// Stages a record, stored as JSON.
    pub(super) fn put<T: Serialize>(&mut self, key: Key, value: &T) -> Result<(), Fault> {
        let bytes = serde_json::to_vec(value).map_err(|e| Fault::backend("write a record", e))?;
        self.put_bytes(key, bytes);
        Ok(())
    }

    /// Stages the deletion of a key.
    pub(super) fn delete(&mut self, key: Key) {
        self.set(key.0, None);
    }

    /// Returns the value of a key.
    pub(super) fn get_bytes(&self, key: &Key) -> Result<Option<Vec<u8>>, Fault> {
        match self.changes.get(&key.0) {
            Some(changed) => Ok(changed.clone()),
            None => self.kv.get(&key.0).map_err(read_failed),
        }
    }

    /// Returns the record of a key.
    pub(super) fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, Fault> {
        self.get_bytes(key)?.map(|bytes| decode(&bytes)).transpose()
    }

    /// Visits the entries under a prefix in order, until `visit` breaks.
    pub(super) fn scan<E: From<Fault>>(
        &self,
        prefix: &Key,
        visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        self.scan_from(prefix, Bound::Included(prefix.0.clone()), visit)
    }

    /// Visits the entries under a prefix in order, from a key on, until `visit` breaks.
    pub(super) fn scan_from<E: From<Fault>>(
        &self,
        prefix: &Key,
        from: Bound<Vec<u8>>,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let to = after_prefix(&prefix.0);
        let mut changed = self.changes.range((from.clone(), to.clone())).peekable();
        let mut stored = StoredEntries {
            kv: self.kv,
            from,
            to,
            fetched: VecDeque::new(),
            next_fetch: MIN_FETCH,
        };
        loop {
            let from_store = stored.peek()?;
            // The smaller key goes first. At equal keys the change does: it replaces the stored
            // value.
            let take_change = match (from_store, changed.peek()) {
                (None, None) => return Ok(()),
                (Some((key, _)), Some((change, _))) => *change <= key,
                (None, Some(_)) => true,
                (Some(_), None) => false,
            };
            let flow = if take_change {
                let Some((key, value)) = changed.next() else {
                    return Ok(());
                };
                if stored
                    .peek()?
                    .is_some_and(|(stored_key, _)| stored_key == key)
                {
                    stored.fetched.pop_front();
                }
                match value {
                    Some(value) => visit(key, value)?,
                    None => ControlFlow::Continue(()),
                }
            } else {
                let Some((key, value)) = stored.fetched.pop_front() else {
                    return Ok(());
                };
                visit(&key, &value)?
            };
            if flow.is_break() {
                return Ok(());
            }
        }
    }

    /// Returns the first entry under a prefix.
    pub(super) fn first(&self, prefix: &Key) -> Result<Option<Entry>, Fault> {
        let mut found = None;
        self.scan(prefix, |key, value| -> Result<_, Fault> {
            found = Some((key.to_vec(), value.to_vec()));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// Returns the last key under a prefix.
    pub(super) fn last_key(&self, prefix: &Key) -> Result<Option<Vec<u8>>, Fault> {
        let mut to = after_prefix(&prefix.0);
        loop {
            let bounds = (Bound::Included(prefix.0.clone()), to.clone());
            let changed = self.changes.range(bounds).next_back();
            let stored = self
                .kv
                .last(Bound::Included(&prefix.0), as_slice(&to))
                .map_err(read_failed)?
                .map(|(key, _)| key);
            match (changed, stored) {
                (Some((key, value)), stored) if stored.as_ref().is_none_or(|s| s <= key) => {
                    if value.is_some() {
                        return Ok(Some(key.clone()));
                    }
                    // The last key is deleted by a staged change: look before it.
                    to = Bound::Excluded(key.clone());
                }
                (_, stored) => return Ok(stored),
            }
        }
    }

    /// Returns the records under a prefix, at most `limit`.
    pub(super) fn list<T: DeserializeOwned>(
        &self,
        prefix: &Key,
        limit: usize,
    ) -> Result<Vec<T>, Fault> {
        let mut records = vec![];
        self.scan(prefix, |_, value| -> Result<_, Fault> {
            if records.len() >= limit {
                return Ok(ControlFlow::Break(()));
            }
            records.push(decode(value)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(records)
    }

    /// Returns a page of the records under a prefix that follow a key, and the key that the next
    /// page follows; `None` after the last page.
    pub(super) fn page<T: DeserializeOwned>(
        &self,
        prefix: &Key,
        after: Option<Vec<u8>>,
    ) -> Result<(Vec<T>, Option<Vec<u8>>), Fault> {
        let from = after.map_or_else(|| Bound::Included(prefix.0.clone()), Bound::Excluded);
        let (mut records, mut last) = (vec![], None);
        self.scan_from(prefix, from, |key, value| -> Result<_, Fault> {
            records.push(decode(value)?);
            last = Some(key.to_vec());
            Ok(if records.len() < PAGE_SIZE {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        })?;
        let more = records.len() == PAGE_SIZE;
        Ok((records, last.filter(|_| more)))
    }

    /// Returns the value of a counter; an absent one is zero.
    pub(super) fn number(&self, key: &Key) -> Result<u64, Fault> {
        Ok(self.get(key)?.unwrap_or(0))
    }

    /// Adds to a counter and returns its new value. A counter at zero is deleted.
    pub(super) fn add(&mut self, key: Key, change: i64) -> Result<u64, Fault> {
        let value = self.number(&key)?.saturating_add_signed(change);
        if value == 0 {
            self.delete(key);
        } else {
            self.put(key, &value)?;
        }
        Ok(value)
    }
}

/// Reads a record.
///
/// # Errors
///
/// Returns [`Fault::Backend`] when the bytes are not such a record.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|e| Fault::backend("read a record", e))
}

fn as_slice(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(key) => Bound::Included(key),
        Bound::Excluded(key) => Bound::Excluded(key),
        Bound::Unbounded => Bound::Unbounded,
    }
}

/// The stored entries of a scan, fetched piece by piece.
struct StoredEntries<'a> {
    kv: &'a dyn Kv,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    fetched: VecDeque<Entry>,
    /// How many entries to fetch next; zero once all are fetched.
    next_fetch: usize,
}

impl StoredEntries<'_> {
    /// Returns the next entry without taking it.
    fn peek(&mut self) -> Result<Option<&Entry>, Fault> {
        if self.fetched.is_empty() && self.next_fetch > 0 {
            let entries = self
                .kv
                .range(as_slice(&self.from), as_slice(&self.to), self.next_fetch)
                .map_err(read_failed)?;
            if let Some((last, _)) = entries.last() {
                self.from = Bound::Excluded(last.clone());
            }
            let size: usize = entries
                .iter()
                .map(|(key, value)| key.len() + value.len())
                .sum();
            self.next_fetch = if entries.len() < self.next_fetch && size < MAX_RANGE_SIZE {
                0
            } else {
                (self.next_fetch * 4).min(MAX_FETCH)
            };
            self.fetched = entries.into();
        }
        Ok(self.fetched.front())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapters::memory::MemoryKv;
    use proptest::{
        collection::{btree_map, vec},
        option,
        prelude::*,
    };
    use std::collections::BTreeMap;

    fn entries(txn: &Txn<'_>, prefix: &[u8]) -> Vec<Entry> {
        let mut out = Vec::new();
        txn.scan(&Key(prefix.to_vec()), |k, v| -> Result<_, Fault> {
            out.push((k.to_vec(), v.to_vec()));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        out
    }

    fn key() -> impl Strategy<Value = Vec<u8>> {
        vec(0..3_u8, 1..5)
    }

    proptest! {
        #[test]
        fn view_equals_the_store_after_its_changes(
            stored in btree_map(key(), any::<[u8; 1]>(), 0..30),
            changes in vec((key(), option::of(any::<[u8; 1]>())), 0..30),
            undone in vec((key(), option::of(any::<[u8; 1]>())), 0..10),
            prefix in vec(0..3_u8, 0..3),
        ) {
            let kv = MemoryKv::default();
            let batch = stored.iter().map(|(k, v)| (k.clone(), Some(v.to_vec())));
            kv.apply(batch.collect()).unwrap();
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> =
                stored.into_iter().map(|(k, v)| (k, v.to_vec())).collect();
            let mut txn = Txn::new(&kv);
            for (key, value) in &changes {
                txn.set(key.clone(), value.map(|v| v.to_vec()));
                match value {
                    Some(v) => model.insert(key.clone(), v.to_vec()),
                    None => model.remove(key),
                };
            }
            txn.accept();
            for (key, value) in undone {
                txn.set(key, value.map(|v| v.to_vec()));
            }
            txn.roll_back();
            let expected: Vec<Entry> =
                model.into_iter().filter(|(k, _)| k.starts_with(&prefix)).collect();
            let last = expected.last().map(|(k, _)| k.clone());
            prop_assert_eq!(txn.last_key(&Key(prefix.clone())).unwrap(), last);
            prop_assert_eq!(entries(&txn, &prefix), expected);
        }
    }
}
