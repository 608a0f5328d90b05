//! Merges requests into the queue, as part of a transaction.

use super::columns::ItemColumns;
use crate::{
    adapters::postgres::{
        error::Abort,
        records::{KeyColumns, read, read_all, write},
        scan_cursor::QueuePosition,
    },
    domain::{
        candidate::Candidate,
        name::CodebaseName,
        queue::{Bucket, EnqueueRequest, Interval, Merge, QueueId, QueueItem, QueueKey},
        retry::ItemState,
        time::Time,
    },
    ports::{Fault, QueueStoreError, queue_store::Enqueued},
};
use chrono::NaiveDateTime;
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};

/// Where requests ended up.
#[derive(Default)]
pub(in crate::adapters::postgres) struct EnqueueOutcome {
    /// The items, in the order of the requests.
    pub(super) enqueued: Vec<Enqueued>,
    /// The first position of an item that was inserted or changed.
    pub(super) first: Option<QueuePosition>,
}

/// An item while requests are merged into it.
struct Slot {
    item: QueueItem,
    state: SlotState,
    /// Whether it is neither parked nor snoozed any more.
    renewed: bool,
    /// Until when it is not assigned, if it is new.
    interval: Option<Interval>,
}

#[derive(PartialEq)]
enum SlotState {
    /// It is to be inserted; its id is not known yet.
    New,
    Unchanged,
    Changed,
    /// A worker holds it: the request is stored with its active run until that ends.
    Held {
        pending: Option<Box<EnqueueRequest>>,
        changed: bool,
    },
}

/// The items that requests are merged into, by key.
struct Slots {
    of_key: HashMap<QueueKey, Slot>,
    /// The keys of new items, in the order in which they are inserted.
    inserted: Vec<QueueKey>,
    /// The smallest priority in the queue, which those of requests are relative to.
    min_priority: Option<i64>,
}

/// Locks the items of these keys and their active runs, with the requests that are pending for
/// those that are held.
async fn lock_slots(
    connection: &mut PgConnection,
    requests: &[EnqueueRequest],
) -> sqlx::Result<HashMap<QueueKey, Slot>> {
    let keys: HashSet<&QueueKey> = requests.iter().map(|request| &request.key).collect();
    let columns = KeyColumns::from_iter(keys);
    let ids: Vec<i64> = sqlx::query_scalar(include_str!("../sql/find_items_of_keys.sql"))
        .bind(columns.codebases)
        .bind(columns.campaigns)
        .bind(columns.change_sets)
        .fetch_all(&mut *connection)
        .await?;
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    // An item that was removed meanwhile is missing here, and inserted again.
    let items: Vec<String> = sqlx::query_scalar(include_str!("../sql/lock_items.sql"))
        .bind(ids)
        .fetch_all(&mut *connection)
        .await?;
    let items: Vec<QueueItem> = read_all(items)?;
    // A statement of its own, which sees the claims that were committed while the one before
    // waited for its locks.
    let ids: Vec<QueueId> = items.iter().map(|item| item.id).collect();
    let held: Vec<(i64, Option<String>)> = sqlx::query_as(
        "SELECT queue_id, pending_enqueue::text FROM runner_active_run
         WHERE queue_id = ANY ($1) ORDER BY queue_id FOR UPDATE",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    let mut held: HashMap<QueueId, Option<String>> = held.into_iter().collect();
    let slot = |item: QueueItem| {
        let state = match held.remove(&item.id) {
            Some(pending) => SlotState::Held {
                pending: pending.map(|pending| read(&pending)).transpose()?,
                changed: false,
            },
            None => SlotState::Unchanged,
        };
        let key = item.key.clone();
        Ok((
            key,
            Slot {
                item,
                state,
                renewed: false,
                interval: None,
            },
        ))
    };
    items.into_iter().map(slot).collect()
}

impl Slots {
    /// Merges a request into the slot of its key, and returns the bucket that the item is in then.
    fn merge_request(&mut self, request: EnqueueRequest) -> Bucket {
        let Some(slot) = self.of_key.get_mut(&request.key) else {
            let interval = request.interval;
            return self.add_item(request.into_item(0, self.min_priority), interval);
        };
        if let SlotState::Held { pending, changed } = &mut slot.state {
            *changed = true;
            match pending {
                Some(pending) => pending.coalesce(request),
                none => *none = Some(Box::new(request)),
            }
        } else {
            let merge = slot.item.merge(request, self.min_priority);
            if merge != Merge::Unchanged {
                self.min_priority = self.min_priority.map(|min| min.min(slot.item.priority));
                if slot.state == SlotState::Unchanged {
                    slot.state = SlotState::Changed;
                }
            }
            slot.renewed |= merge == Merge::Renewed;
        }
        slot.item.bucket
    }

    fn add_item(&mut self, item: QueueItem, interval: Option<Interval>) -> Bucket {
        let (key, bucket, priority) = (item.key.clone(), item.bucket, item.priority);
        self.min_priority = Some(self.min_priority.map_or(priority, |min| min.min(priority)));
        self.inserted.push(key.clone());
        self.of_key.insert(
            key,
            Slot {
                item,
                state: SlotState::New,
                renewed: false,
                interval,
            },
        );
        bucket
    }

    /// Inserts the new items, and stores the ids that they get.
    async fn insert_new(
        &mut self,
        connection: &mut PgConnection,
        now: Time,
    ) -> Result<(), Abort<QueueStoreError>> {
        if self.inserted.is_empty() {
            return Ok(());
        }
        let new = self.inserted.iter().filter_map(|key| self.of_key.get(key));
        let columns: ItemColumns = new.map(|slot| &slot.item).collect();
        let ids = columns.insert(&mut *connection).await?;
        // Another transaction inserted one of the keys after we looked for it; the next attempt
        // merges the request into that item.
        if ids.len() < self.inserted.len() {
            return Err(Abort::Contended);
        }
        if let Some(first) = ids.values().min() {
            sqlx::query(include_str!("../sql/record_first_id.sql"))
                .bind(now.naive_utc())
                .bind(*first)
                .execute(connection)
                .await?;
        }
        for (key, id) in ids {
            if let Some(slot) = self.of_key.get_mut(&key) {
                slot.item.id = id;
            }
        }
        Ok(())
    }

    async fn update_changed(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let changed = self
            .of_key
            .values()
            .filter(|slot| slot.state == SlotState::Changed);
        let columns: ItemColumns = changed.map(|slot| &slot.item).collect();
        columns.update(connection).await
    }

    /// Stores the requests for held items with their active runs.
    async fn store_pending(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let pending = self.of_key.values().filter_map(|slot| match &slot.state {
            SlotState::Held {
                pending: Some(pending),
                changed: true,
            } => Some((slot.item.id, write(pending))),
            _ => None,
        });
        let (ids, requests): (Vec<i64>, Vec<String>) = pending.unzip();
        if ids.is_empty() {
            return Ok(());
        }
        sqlx::query(include_str!("../sql/store_pending_enqueues.sql"))
            .bind(ids)
            .bind(requests)
            .execute(connection)
            .await
            .map(drop)
    }

    /// Unparks and wakes the items that requests brought into an earlier bucket; others are woken
    /// when they are in an interval, since somebody has asked for them now.
    async fn unpark_renewed(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let known = |slot: &&Slot| matches!(slot.state, SlotState::Unchanged | SlotState::Changed);
        let (ids, renewed): (Vec<QueueId>, Vec<bool>) = self
            .of_key
            .values()
            .filter(known)
            .map(|slot| (slot.item.id, slot.renewed))
            .unzip();
        if ids.is_empty() {
            return Ok(());
        }
        sqlx::query(include_str!("../sql/unpark_renewed.sql"))
            .bind(ids)
            .bind(renewed)
            .execute(connection)
            .await
            .map(drop)
    }

    /// Stores the intervals of new items, whose ids are known.
    async fn store_intervals(&self, connection: &mut PgConnection) -> sqlx::Result<()> {
        let in_interval = self.inserted.iter().filter_map(|key| {
            let slot = self.of_key.get(key)?;
            let interval = slot.interval?;
            let state = write(&ItemState::in_interval(Some(interval)));
            Some((slot.item.id, (state, interval.until.naive_utc())))
        });
        let (ids, states): (Vec<QueueId>, Vec<_>) = in_interval.unzip();
        if ids.is_empty() {
            return Ok(());
        }
        let (states, until): (Vec<String>, Vec<NaiveDateTime>) = states.into_iter().unzip();
        sqlx::query(include_str!("../sql/store_intervals.sql"))
            .bind(ids)
            .bind(states)
            .bind(until)
            .execute(connection)
            .await
            .map(drop)
    }

    /// Returns the first position of an item that was inserted or changed.
    fn first_position(&self) -> Option<QueuePosition> {
        self.of_key
            .values()
            .filter(|slot| matches!(slot.state, SlotState::New | SlotState::Changed))
            .map(|slot| slot.item.order())
            .min()
    }
}

/// Checks that the codebases of requests are stored; returns the smallest priority in the queue.
async fn check_codebases(
    connection: &mut PgConnection,
    requests: &[EnqueueRequest],
) -> Result<Option<i64>, Abort<QueueStoreError>> {
    let codebases: HashSet<&str> = requests
        .iter()
        .map(|request| request.key.codebase.as_str())
        .collect();
    let (unknown, min_priority): (Option<String>, Option<i64>) =
        sqlx::query_as(include_str!("../sql/enqueue_preconditions.sql"))
            .bind(codebases.into_iter().collect::<Vec<_>>())
            .fetch_one(connection)
            .await?;
    match unknown.and_then(|name| CodebaseName::new(name).ok()) {
        Some(name) => Err(Abort::Refused(QueueStoreError::UnknownCodebase(name))),
        None => Ok(min_priority),
    }
}

/// Enqueues requests by the update rule, in order; part of a transaction.
pub(in crate::adapters::postgres) async fn enqueue(
    connection: &mut PgConnection,
    requests: Vec<EnqueueRequest>,
    now: Time,
) -> Result<EnqueueOutcome, Abort<QueueStoreError>> {
    if requests.is_empty() {
        return Ok(EnqueueOutcome::default());
    }
    let min_priority = check_codebases(&mut *connection, &requests).await?;
    let of_key = lock_slots(&mut *connection, &requests).await?;
    let mut slots = Slots {
        of_key,
        inserted: vec![],
        min_priority,
    };
    let merged: Vec<(QueueKey, Bucket)> = requests
        .into_iter()
        .map(|request| (request.key.clone(), slots.merge_request(request)))
        .collect();
    slots.insert_new(&mut *connection, now).await?;
    slots.store_intervals(&mut *connection).await?;
    slots.update_changed(&mut *connection).await?;
    slots.store_pending(&mut *connection).await?;
    slots.unpark_renewed(connection).await?;
    let id_of = |key: &QueueKey| slots.of_key.get(key).map_or(0, |slot| slot.item.id);
    let enqueued = merged
        .into_iter()
        .map(|(key, bucket)| Enqueued {
            queue_id: id_of(&key),
            bucket,
        })
        .collect();
    Ok(EnqueueOutcome {
        enqueued,
        first: slots.first_position(),
    })
}

/// Enqueues the request that was pending for an item that is not held any more; part of a
/// transaction. A request for a codebase that was deleted meanwhile is dropped: it must not keep
/// the claim from ending.
pub(in crate::adapters::postgres) async fn enqueue_pending<E: From<Fault>>(
    connection: &mut PgConnection,
    pending: &str,
    now: Time,
) -> Result<(), Abort<E>> {
    let requests = vec![read::<EnqueueRequest>(pending)?];
    match enqueue(connection, requests, now).await {
        Ok(_) | Err(Abort::Refused(QueueStoreError::UnknownCodebase(_))) => Ok(()),
        Err(abort) => {
            Err(abort.into_other(|error| Fault::backend("enqueue a pending request", error).into()))
        }
    }
}

/// Makes the schedules that follow runs; part of a transaction. An item that is there already stays
/// as it is: it was queued after the run, or is held by a later one. The commands are those of the
/// candidates now, read after the items are locked, and what has no candidate any more is left out.
pub(super) async fn enqueue_follow_ups(
    connection: &mut PgConnection,
    requests: Vec<EnqueueRequest>,
    now: Time,
) -> Result<EnqueueOutcome, Abort<QueueStoreError>> {
    check_codebases(&mut *connection, &requests).await?;
    let columns: KeyColumns = requests.iter().map(|request| &request.key).collect();
    let ids: Vec<i64> = sqlx::query_scalar(include_str!("../sql/find_items_of_keys.sql"))
        .bind(&columns.codebases)
        .bind(&columns.campaigns)
        .bind(&columns.change_sets)
        .fetch_all(&mut *connection)
        .await?;
    let items: Vec<String> = sqlx::query_scalar(include_str!("../sql/lock_items.sql"))
        .bind(ids)
        .fetch_all(&mut *connection)
        .await?;
    let items: Vec<QueueItem> = read_all(items)?;
    let mut taken: HashSet<QueueKey> = items.into_iter().map(|item| item.key).collect();
    let candidates: Vec<String> =
        sqlx::query_scalar(include_str!("../sql/find_candidates_of_keys.sql"))
            .bind(columns.codebases)
            .bind(columns.campaigns)
            .bind(columns.change_sets)
            .fetch_all(&mut *connection)
            .await?;
    let candidates: HashMap<QueueKey, String> = read_all::<Candidate>(candidates)?
        .into_iter()
        .map(|candidate| (candidate.key, candidate.command))
        .collect();
    let mut new: Vec<EnqueueRequest> = vec![];
    // The last of several requests for one key has the context of the last run.
    for request in requests.into_iter().rev() {
        let command = candidates.get(&request.key).cloned();
        if let Some(command) = command.filter(|_| taken.insert(request.key.clone())) {
            new.push(EnqueueRequest { command, ..request });
        }
    }
    new.reverse();
    enqueue(connection, new, now).await
}
