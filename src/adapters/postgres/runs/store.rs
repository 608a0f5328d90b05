//! Stores runs that end: all of a batch by one statement, or each by itself where that fails.

use super::{refresh_summaries, refusal, rows, store_error};
use crate::{
    adapters::postgres::{
        Tables,
        error::{Abort, duplicate, is_conflict},
        queue,
    },
    domain::{name::RunId, retry::Disposition},
    ports::{
        Fault, RunStoreError,
        run_recorder::{NewRun, Recorded},
    },
};
use sqlx::PgConnection;
use std::collections::HashSet;

/// What became of a run.
pub(in crate::adapters::postgres) type RecordOutcome = Result<Recorded, RunStoreError>;

const STORE: &str = include_str!("../sql/store_runs.sql");

/// Stores one run, also one for whose item a request is pending; false when it is not held with
/// its token.
async fn store_one(connection: &mut PgConnection, new: &NewRun) -> Result<bool, Abort<Fault>> {
    // The item is locked before the active run, as everywhere.
    sqlx::query("SELECT FROM queue WHERE id = $1 FOR UPDATE")
        .bind(new.run.queue_id)
        .execute(&mut *connection)
        .await?;
    let pending: Option<Option<String>> =
        sqlx::query_scalar(include_str!("../sql/take_pending_enqueue.sql"))
            .bind(new.run.id.as_str())
            .bind(&new.token)
            .bind(new.unless_seen_after.map(|seen| seen.naive_utc()))
            .fetch_optional(&mut *connection)
            .await?;
    let Some(pending) = pending else {
        return Ok(false);
    };
    sqlx::query(STORE)
        .bind(rows::document([new]))
        .execute(&mut *connection)
        .await?;
    refresh_summaries(connection, std::slice::from_ref(new)).await?;
    if let Some(pending) = pending {
        queue::enqueue_pending(connection, &pending, new.now).await?;
    }
    Ok(true)
}

impl Tables {
    /// Stores what can be stored together; returns the ids.
    async fn store(&self, batch: &[NewRun]) -> Result<HashSet<String>, Fault> {
        let document = rows::document(batch);
        let stored: Vec<String> = if self.has_our_triggers {
            // One statement is a transaction of its own.
            let store = sqlx::query_scalar(STORE).bind(document);
            self.run("store runs", store.fetch_all(self.connections()))
                .await?
        } else {
            let store = self.transaction::<_, Fault>("store runs", |connection| {
                let (document, batch) = (document.clone(), batch.to_vec());
                Box::pin(async move {
                    let stored = sqlx::query_scalar(STORE)
                        .bind(document)
                        .fetch_all(&mut *connection)
                        .await?;
                    refresh_summaries(connection, &batch).await?;
                    Ok(stored)
                })
            });
            store.await?
        };
        Ok(stored.into_iter().collect())
    }

    /// Stores one run that could not be stored among others, or returns why not.
    async fn record(&self, new: NewRun) -> RecordOutcome {
        if let Some(known) = self.find_run(&new.run.id).await? {
            return Ok(Recorded::AlreadyStored(Box::new(known)));
        }
        self.check_worker(&new.run).await?;
        let stored = self.transaction("store a run", |connection| {
            let new = new.clone();
            Box::pin(async move { store_one(connection, &new).await })
        });
        match stored.await {
            Ok(true) => {
                // A pending request may have been enqueued.
                self.cursor.item_available(None);
                self.notify_available(1);
                Ok(Recorded::Stored)
            }
            // Nobody holds it with that token; another request may have stored it just now.
            Ok(false) => match self.find_run(&new.run.id).await? {
                Some(known) => Ok(Recorded::AlreadyStored(Box::new(known))),
                None => Err(RunStoreError::ClaimLost(new.run.id)),
            },
            Err(fault) => Err(store_error(fault)),
        }
    }

    /// Notifies those who wait of what a batch that was stored makes available.
    fn notify_ended(&self, batch: &[NewRun], stored: usize) {
        if stored > 0 {
            // What ended frees capacity where runs are limited, for workers who wait here.
            self.availability.add(stored);
        }
        let requeued = |new: &NewRun| new.disposition != Disposition::Complete;
        if batch.iter().any(requeued) {
            self.cursor.item_available(None);
            self.notify_available(1);
        }
    }

    /// Stores a batch; returns the outcomes in its order.
    pub(in crate::adapters::postgres) async fn record_all(
        self,
        batch: Vec<NewRun>,
    ) -> Vec<RecordOutcome> {
        let by_worker = batch.iter().filter(|new| !new.run.given_up);
        let seen: Vec<_> = by_worker
            .filter_map(|new| Some((new.run.worker.clone()?, new.now)))
            .collect();
        // Two results of one run cannot be stored by one statement: the second one must see the
        // first.
        let distinct: HashSet<&RunId> = batch.iter().map(|new| &new.run.id).collect();
        let together = if distinct.len() == batch.len() {
            self.store(&batch).await
        } else {
            Ok(HashSet::new())
        };
        let stored = match together {
            Ok(stored) => stored,
            // One of them makes the statement fail for all, or another transaction was in the way:
            // each is stored by itself.
            Err(fault) if refusal(&fault).is_some() || is_conflict(&fault) => HashSet::new(),
            Err(fault) => {
                return batch
                    .iter()
                    .map(|_| Err(duplicate(&fault).into()))
                    .collect();
            }
        };
        self.notify_ended(&batch, stored.len());
        let mut outcomes = Vec::with_capacity(batch.len());
        for new in batch {
            outcomes.push(if stored.contains(new.run.id.as_str()) {
                Ok(Recorded::Stored)
            } else {
                self.record(new).await
            });
        }
        if outcomes.iter().any(Result::is_ok) {
            self.record_last_seen(seen).await;
        }
        outcomes
    }
}
