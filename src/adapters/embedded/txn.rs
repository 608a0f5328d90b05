//! A view of the key-value store with changes on top that are not applied yet.

use super::keys::Key;
use crate::ports::Fault;
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, VecDeque},
    ops::{Bound, ControlFlow},
};

/// Keys with their new values; none takes a key away.
pub type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;
/// Why a key-value store failed.
pub type KvError = Box<dyn std::error::Error + Send + Sync>;
type Entry = (Vec<u8>, Vec<u8>);
/// A new value; none takes the key away.
type Change = Option<Vec<u8>>;

/// An ordered key-value store.
pub trait Kv: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;
    /// At most `limit` entries between the bounds, from the front.
    fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError>;
    /// The last entry between the bounds.
    fn last(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Result<Option<Entry>, KvError>;
    /// Applies a batch, all or nothing, also when the process dies.
    fn apply(&self, batch: Batch) -> Result<(), KvError>;
    /// Makes all that was applied durable.
    fn flush(&self) -> Result<(), KvError>;
}

/// How many entries a scan fetches at a time: few at first, since most scans want one.
const FIRST_FETCH: usize = 8;
const MOST_FETCH: usize = 1024;
/// Records that are read in one go, so that a long list does not keep the writer waiting.
const PAGE: usize = 1000;

/// A change in the making, or just a view.
pub(super) struct Txn<'a> {
    kv: &'a dyn Kv,
    changes: Batch,
    /// What the changes of the operation under way replaced in `changes`.
    replaced: Vec<(Vec<u8>, Option<Change>)>,
}

fn failed(error: impl Into<KvError>) -> Fault {
    Fault::backend("read the store", error)
}

/// The end of the range of keys that start with `prefix`.
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
    pub(super) fn new(kv: &'a dyn Kv) -> Self {
        Self {
            kv,
            changes: Batch::new(),
            replaced: vec![],
        }
    }

    pub(super) fn into_batch(self) -> Batch {
        self.changes
    }

    /// The operation is done: its changes stay.
    pub(super) fn keep(&mut self) {
        self.replaced.clear();
    }

    /// The operation failed: its changes go.
    pub(super) fn undo(&mut self) {
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

    pub(super) fn put_bytes(&mut self, key: Key, value: Vec<u8>) {
        self.set(key.0, Some(value));
    }

    pub(super) fn put<T: Serialize>(&mut self, key: Key, value: &T) -> Result<(), Fault> {
        let bytes = serde_json::to_vec(value).map_err(|e| Fault::backend("write a record", e))?;
        self.put_bytes(key, bytes);
        Ok(())
    }

    pub(super) fn delete(&mut self, key: Key) {
        self.set(key.0, None);
    }

    pub(super) fn get_bytes(&self, key: &Key) -> Result<Option<Vec<u8>>, Fault> {
        match self.changes.get(&key.0) {
            Some(changed) => Ok(changed.clone()),
            None => self.kv.get(&key.0).map_err(failed),
        }
    }

    pub(super) fn get<T: DeserializeOwned>(&self, key: &Key) -> Result<Option<T>, Fault> {
        self.get_bytes(key)?.map(|bytes| decode(&bytes)).transpose()
    }

    /// Visits the entries under a prefix in order, until told to stop.
    pub(super) fn scan<E: From<Fault>>(
        &self,
        prefix: &Key,
        visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        self.scan_from(prefix, Bound::Included(prefix.0.clone()), visit)
    }

    /// Visits the entries under a prefix from a key on.
    fn scan_from<E: From<Fault>>(
        &self,
        prefix: &Key,
        from: Bound<Vec<u8>>,
        mut visit: impl FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let to = after_prefix(&prefix.0);
        let mut changed = self.changes.range((from.clone(), to.clone())).peekable();
        let mut stored = Stored {
            kv: self.kv,
            from,
            to,
            fetched: VecDeque::new(),
            fetch: FIRST_FETCH,
        };
        loop {
            let from_store = stored.peek()?;
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

    /// The first entry under a prefix.
    pub(super) fn first(&self, prefix: &Key) -> Result<Option<Entry>, Fault> {
        let mut found = None;
        self.scan(prefix, |key, value| -> Result<_, Fault> {
            found = Some((key.to_vec(), value.to_vec()));
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    }

    /// The last key under a prefix.
    pub(super) fn last_key(&self, prefix: &Key) -> Result<Option<Vec<u8>>, Fault> {
        let mut to = after_prefix(&prefix.0);
        loop {
            let bounds = (Bound::Included(prefix.0.clone()), to.clone());
            let changed = self.changes.range(bounds).next_back();
            let stored = self
                .kv
                .last(Bound::Included(&prefix.0), as_slice(&to))
                .map_err(failed)?
                .map(|(key, _)| key);
            match (changed, stored) {
                (Some((key, value)), stored) if stored.as_ref().is_none_or(|s| s <= key) => {
                    if value.is_some() {
                        return Ok(Some(key.clone()));
                    }
                    to = Bound::Excluded(key.clone());
                }
                (_, stored) => return Ok(stored),
            }
        }
    }

    /// The records under a prefix, at most `limit`.
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

    /// The records under a prefix after a key, at most a page, and the key that the next page comes after.
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
            Ok(if records.len() < PAGE {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            })
        })?;
        let more = records.len() == PAGE;
        Ok((records, last.filter(|_| more)))
    }

    pub(super) fn number(&self, key: &Key) -> Result<u64, Fault> {
        Ok(self.get(key)?.unwrap_or(0))
    }

    /// Adds to a counter; one at zero is not kept.
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

/// The stored entries of a scan, fetched bit by bit.
struct Stored<'a> {
    kv: &'a dyn Kv,
    from: Bound<Vec<u8>>,
    to: Bound<Vec<u8>>,
    fetched: VecDeque<Entry>,
    /// How many to fetch next; zero once all are there.
    fetch: usize,
}

impl Stored<'_> {
    fn peek(&mut self) -> Result<Option<&Entry>, Fault> {
        if self.fetched.is_empty() && self.fetch > 0 {
            let entries = self
                .kv
                .range(as_slice(&self.from), as_slice(&self.to), self.fetch)
                .map_err(failed)?;
            if let Some((last, _)) = entries.last() {
                self.from = Bound::Excluded(last.clone());
            }
            self.fetch = if entries.len() < self.fetch {
                0
            } else {
                (self.fetch * 4).min(MOST_FETCH)
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
    use proptest::prelude::*;

    fn entries(txn: &Txn<'_>, prefix: &[u8]) -> Vec<Entry> {
        let mut out = vec![];
        txn.scan(&Key(prefix.to_vec()), |k, v| -> Result<_, Fault> {
            out.push((k.to_vec(), v.to_vec()));
            Ok(ControlFlow::Continue(()))
        })
        .unwrap();
        out
    }

    proptest! {
        #[test]
        fn a_view_with_changes_is_what_they_will_make(
            stored in proptest::collection::btree_map(proptest::collection::vec(0..3_u8, 1..5), any::<[u8; 1]>(), 0..30),
            changes in proptest::collection::vec((proptest::collection::vec(0..3_u8, 1..5), proptest::option::of(any::<[u8; 1]>())), 0..30),
            undone in proptest::collection::vec((proptest::collection::vec(0..3_u8, 1..5), proptest::option::of(any::<[u8; 1]>())), 0..10),
            prefix in proptest::collection::vec(0..3_u8, 0..3),
        ) {
            let kv = MemoryKv::default();
            kv.apply(stored.iter().map(|(k, v)| (k.clone(), Some(v.to_vec()))).collect()).unwrap();
            let mut model: BTreeMap<Vec<u8>, Vec<u8>> = stored.into_iter().map(|(k, v)| (k, v.to_vec())).collect();
            let mut txn = Txn::new(&kv);
            for (key, value) in &changes {
                txn.set(key.clone(), value.map(|v| v.to_vec()));
                match value {
                    Some(v) => model.insert(key.clone(), v.to_vec()),
                    None => model.remove(key),
                };
            }
            txn.keep();
            for (key, value) in undone {
                txn.set(key, value.map(|v| v.to_vec()));
            }
            txn.undo();
            let expected: Vec<Entry> = model.into_iter().filter(|(k, _)| k.starts_with(&prefix)).collect();
            prop_assert_eq!(txn.last_key(&Key(prefix.clone())).unwrap(), expected.last().map(|(k, _)| k.clone()));
            prop_assert_eq!(entries(&txn, &prefix), expected);
        }
    }
}
