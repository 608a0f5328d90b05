//! The port of the embedded stores: an ordered key-value store, brought by `adapters/sled`,
//! `adapters/redb` and `adapters/memory`.

use std::{collections::BTreeMap, ops::Bound};

/// Keys with their new values; `None` deletes the key.
pub type Batch = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// Why a key-value store failed.
pub type KvError = Box<dyn std::error::Error + Send + Sync>;

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// After how many bytes of entries one range ends, however many were asked for.
pub const MAX_RANGE_SIZE: usize = 1 << 20;

/// An ordered key-value store.
pub trait Kv: Send + Sync + 'static {
    /// Returns the value of a key, `None` when the key is absent.
    ///
    /// # Errors
    ///
    /// Returns the error of the key-value store.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// Returns at most `limit` entries between the bounds, in ascending order of their keys; fewer
    /// once they have 1 MiB.
    ///
    /// # Errors
    ///
    /// Returns the error of the key-value store.
    fn range(
        &self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Entry>, KvError>;

    /// Returns the last entry between the bounds.
    ///
    /// # Errors
    ///
    /// Returns the error of the key-value store.
    fn last(&self, from: Bound<&[u8]>, to: Bound<&[u8]>) -> Result<Option<Entry>, KvError>;

    /// Applies a batch atomically, even when the process dies meanwhile. The batch is durable only
    /// after the next [`Kv::flush`].
    ///
    /// # Errors
    ///
    /// Returns the error of the key-value store; nothing is applied then.
    fn apply(&self, batch: Batch) -> Result<(), KvError>;

    /// Makes all applied batches durable: they survive a power cut.
    ///
    /// # Errors
    ///
    /// Returns the error of the key-value store.
    fn flush(&self) -> Result<(), KvError>;
}
