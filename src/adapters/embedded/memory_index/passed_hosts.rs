//! The hosts of items that claims pass over because of them.
//!
//! Such items gather at the front of the queue, and the host of each is in the record of its
//! codebase: reading these again at each claim takes longer than all else.

use crate::domain::queue::QueueId;
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// The number of items that are remembered; with more, all are forgotten.
const MAX_ITEMS: usize = 100_000;

/// The hosts of items.
#[derive(Debug, Default)]
pub(in super::super) struct PassedHosts(Mutex<HashMap<QueueId, Box<str>>>);

impl PassedHosts {
    /// Returns whether an item is known to be on one of these hosts.
    pub(in super::super) fn is_on(&self, item: QueueId, hosts: &[String]) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let host = known.get(&item);
        host.is_some_and(|host| hosts.iter().any(|blocked| **blocked == **host))
    }

    /// Remembers the host of an item.
    pub(in super::super) fn remember(&self, item: QueueId, host: &str) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_ITEMS {
            known.clear();
        }
        known.insert(item, host.into());
    }

    /// Forgets all of them, since codebases have changed.
    pub(in super::super) fn forget(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
