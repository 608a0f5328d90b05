//! When workers were last seen. A worker that comes often is not written each time: its row would be what all wait for.

use super::Tables;
use crate::{domain::time::Time, ports::Fault};
use chrono::TimeDelta;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
};

/// A worker is written again after so many seconds.
const WRITE_EVERY: i64 = 10;
/// Workers that are remembered.
const MOST_KNOWN: usize = 10_000;

/// What was written when.
#[derive(Debug, Default)]
pub(super) struct Seen {
    written: Mutex<HashMap<String, Time>>,
}

impl Seen {
    /// Those of them that are to be written; taken to be written from now on.
    fn due(&self, seen: BTreeMap<String, Time>) -> BTreeMap<String, Time> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let due = |name: &String, now: &Time| {
            written
                .get(name)
                .is_none_or(|then| *now - *then >= TimeDelta::seconds(WRITE_EVERY))
        };
        let due: BTreeMap<_, _> = seen
            .into_iter()
            .filter(|(name, now)| due(name, now))
            .collect();
        // Names come from outside: what is forgotten here is written once more, that is all.
        if written.len() > MOST_KNOWN {
            written.clear();
        }
        written.extend(due.clone());
        due
    }

    pub(super) fn forget(&self, name: &str) {
        self.written
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(name);
    }
}

impl Tables {
    /// Notes signs of life; to miss one does no harm.
    pub(super) async fn note_seen(&self, seen: impl IntoIterator<Item = (String, Time)>) {
        let due = self.seen.due(seen.into_iter().collect());
        if due.is_empty() {
            return;
        }
        let (names, times): (Vec<String>, Vec<_>) = due
            .into_iter()
            .map(|(name, time)| (name, time.naive_utc()))
            .unzip();
        let write = sqlx::query(
            "INSERT INTO runner_worker AS known (name, last_seen) SELECT * FROM unnest($1::text[], $2::timestamp[]) ORDER BY 1
             ON CONFLICT (name) DO UPDATE SET last_seen = greatest(known.last_seen, excluded.last_seen)",
        );
        let written = self.ask(
            "note workers",
            write.bind(&names).bind(times).execute(self.link.pool()),
        );
        if let Err(error) = written.await {
            for name in &names {
                self.seen.forget(name);
            }
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "workers were not noted"
            );
        }
    }

    pub(super) async fn forget_worker(&self, name: &str) -> Result<(), Fault> {
        self.seen.forget(name);
        let delete = sqlx::query("DELETE FROM runner_worker WHERE name = $1").bind(name);
        self.ask("forget a worker", delete.execute(self.link.pool()))
            .await
            .map(drop)
    }
}
