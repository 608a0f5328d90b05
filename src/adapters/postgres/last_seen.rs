//! When workers were last seen. A worker that comes often is not written each time: its row would
//! be what all requests wait for.

use super::Tables;
use crate::{domain::time::Time, ports::Fault};
use chrono::TimeDelta;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A worker is written again after so many seconds.
const WRITE_INTERVAL_SECONDS: i64 = 10;
/// Workers whose last write is remembered.
const MAX_ENTRIES: usize = 10_000;

/// Limits how often the row of a worker is written.
#[derive(Debug, Default)]
pub(super) struct LastSeenThrottle {
    written: Mutex<HashMap<String, Time>>,
}

impl LastSeenThrottle {
    fn written(&self) -> MutexGuard<'_, HashMap<String, Time>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns those that are due to be written, and counts them as written from now on.
    fn take_due(&self, seen: BTreeMap<String, Time>) -> BTreeMap<String, Time> {
        let mut written = self.written();
        let is_due = |name: &String, now: &Time| {
            written
                .get(name)
                .is_none_or(|then| *now - *then >= TimeDelta::seconds(WRITE_INTERVAL_SECONDS))
        };
        let due: BTreeMap<_, _> = seen
            .into_iter()
            .filter(|(name, now)| is_due(name, now))
            .collect();
        // Names come from outside, so their number must be bounded. A worker that is forgotten
        // here is written once more, which does no harm.
        if written.len() > MAX_ENTRIES {
            written.clear();
        }
        written.extend(due.clone());
        due
    }

    /// Has a worker written when it is seen next.
    fn forget(&self, name: &str) {
        self.written().remove(name);
    }
}

impl Tables {
    /// Records when workers were seen. A failure is only logged: to miss one heartbeat here does
    /// no harm.
    pub(super) async fn record_last_seen(&self, seen: impl IntoIterator<Item = (String, Time)>) {
        let due = self.last_seen.take_due(seen.into_iter().collect());
        if due.is_empty() {
            return;
        }
        let (names, times): (Vec<String>, Vec<_>) = due
            .into_iter()
            .map(|(name, time)| (name, time.naive_utc()))
            .unzip();
        let write = sqlx::query(include_str!("sql/record_last_seen.sql"))
            .bind(&names)
            .bind(times);
        let written = self
            .run("record workers", write.execute(self.connections()))
            .await;
        if let Err(error) = written {
            for name in &names {
                self.last_seen.forget(name);
            }
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "could not record when workers were last seen"
            );
        }
    }

    /// Deletes what is known of a worker, and of the nodes of its account, beside the account.
    pub(super) async fn forget_worker(&self, name: &str) -> Result<(), Fault> {
        self.last_seen.forget(name);
        let delete = sqlx::query(
            "DELETE FROM runner_worker WHERE name = $1 OR starts_with(name, $1 || '/')",
        )
        .bind(name);
        self.run("forget a worker", delete.execute(self.connections()))
            .await
            .map(drop)
    }
}
