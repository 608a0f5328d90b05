//! A mutex for each run, so that uploads of the same run are stored one after the other.

use crate::domain::name::RunId;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

/// A mutex for each run that is being finished.
#[derive(Debug, Default)]
pub struct RunLocks {
    locks: Mutex<HashMap<RunId, Weak<RunLock>>>,
}

/// The lock of one run, held while its files and its result are stored. The value says whether
/// that has been done since the lock was made.
pub(super) type RunLock = tokio::sync::Mutex<bool>;

impl RunLocks {
    /// Returns the lock of a run, the same one for all callers that have it at a time.
    pub(super) fn of(&self, id: &RunId) -> Arc<RunLock> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lock) = locks.get(id).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::default();
        locks.insert(id.clone(), Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_of_a_run_is_shared_while_it_is_in_use() {
        let locks = RunLocks::default();
        let first = locks.of(&RunId::new("r1"));
        assert!(Arc::ptr_eq(&first, &locks.of(&RunId::new("r1"))));
        assert!(!Arc::ptr_eq(&first, &locks.of(&RunId::new("r2"))));
    }

    #[test]
    fn unused_locks_are_removed() {
        let locks = RunLocks::default();
        drop(locks.of(&RunId::new("r1")));
        drop(locks.of(&RunId::new("r2")));
        assert_eq!(locks.locks.lock().unwrap().len(), 1);
    }
}
