//! Steps on queue items that several ports share. Each stages the record and changes the index.

use super::{candidates, keys, memory_index::MemoryIndex, records::StoredItem, txn::Txn};
use crate::{
    domain::{
        queue::{EnqueueRequest, Merge, QueueId, QueueKey},
        retry::ItemState,
        time::Time,
    },
    ports::{Fault, queue_store::Enqueued},
};
use std::collections::HashSet;

/// Persists an item.
pub(super) fn persist(
    txn: &mut Txn<'_>,
    index: &mut MemoryIndex,
    stored: StoredItem,
) -> Result<(), Fault> {
    txn.put(keys::item(stored.item.id), &stored)?;
    index.set_item(stored.item.id, Some(stored));
    Ok(())
}

fn insert(
    txn: &mut Txn<'_>,
    index: &mut MemoryIndex,
    request: EnqueueRequest,
    now: Time,
) -> Result<Enqueued, Fault> {
    let id = txn.add(keys::meta("last_queue_id"), 1)?.cast_signed();
    let state = ItemState::in_interval(request.interval);
    let item = request.into_item(id, index.smallest_priority());
    let enqueued = Enqueued {
        queue_id: id,
        bucket: item.bucket,
    };
    let stored = StoredItem {
        item,
        pending_enqueue: None,
        state,
        added: now,
    };
    persist(txn, index, stored)?;
    Ok(enqueued)
}

/// Enqueues one request: as a new item, or by the update rule of the item of its key.
///
/// A claimed item is not changed, since its run has begun with what it was. It keeps the request
/// until the run ends.
pub(super) fn enqueue(
    txn: &mut Txn<'_>,
    index: &mut MemoryIndex,
    request: EnqueueRequest,
    now: Time,
) -> Result<Enqueued, Fault> {
    let Some(stored) = index.item_by_key(&request.key) else {
        return insert(txn, index, request, now);
    };
    let mut stored = stored.clone();
    let changed = if index.is_claimed(stored.item.id) {
        match &mut stored.pending_enqueue {
            Some(pending) => pending.coalesce(request),
            none => *none = Some(request),
        }
        true
    } else {
        let merge = stored.item.merge(request, index.smallest_priority());
        let renewed = merge == Merge::Renewed || stored.state.repeats.is_some();
        if renewed {
            stored.state = ItemState::default();
        }
        renewed || merge != Merge::Unchanged
    };
    let enqueued = Enqueued {
        queue_id: stored.item.id,
        bucket: stored.item.bucket,
    };
    if changed {
        persist(txn, index, stored)?;
    }
    Ok(enqueued)
}

/// Makes the schedules that follow runs. An item that is there already stays as it is: it was queued
/// after the run, or is claimed by a later one. The commands are those of the candidates now, and
/// what has no candidate any more is left out.
pub(super) fn enqueue_follow_ups(
    txn: &mut Txn<'_>,
    index: &mut MemoryIndex,
    requests: Vec<EnqueueRequest>,
    now: Time,
) -> Result<Vec<Enqueued>, Fault> {
    let (mut new, mut seen) = (vec![], HashSet::<QueueKey>::new());
    // The last of several requests for one key has the context of the last run.
    for request in requests.into_iter().rev() {
        if !seen.insert(request.key.clone()) || index.item_by_key(&request.key).is_some() {
            continue;
        }
        if let Some(candidate) = candidates::of_key(txn, &request.key)? {
            let command = candidate.command;
            new.push(EnqueueRequest { command, ..request });
        }
    }
    new.into_iter()
        .rev()
        .map(|request| insert(txn, index, request, now))
        .collect()
}

/// Removes an item; returns it.
pub(super) fn remove(
    txn: &mut Txn<'_>,
    index: &mut MemoryIndex,
    id: QueueId,
) -> Option<StoredItem> {
    let stored = index.item(id)?.clone();
    txn.delete(keys::item(id));
    index.set_item(id, None);
    Some(stored)
}

/// Removes the item of a finished run, and enqueues the request that was deferred meanwhile.
pub(super) fn complete(
    txn: &mut Txn<'_>,
    index: &mut MemoryIndex,
    id: QueueId,
    now: Time,
) -> Result<(), Fault> {
    match remove(txn, index, id).and_then(|stored| stored.pending_enqueue) {
        Some(request) => insert(txn, index, request, now).map(drop),
        None => Ok(()),
    }
}

/// Applies the request that was deferred while an item was claimed. The claim must be gone already:
/// otherwise the request would be deferred again.
pub(super) fn apply_pending_enqueue(
    txn: &mut Txn<'_>,
    index: &mut MemoryIndex,
    id: QueueId,
    now: Time,
) -> Result<(), Fault> {
    let Some(mut stored) = index.item(id).cloned() else {
        return Ok(());
    };
    let Some(request) = stored.pending_enqueue.take() else {
        return Ok(());
    };
    persist(txn, index, stored)?;
    enqueue(txn, index, request, now).map(drop)
}

/// Puts an item back that was claimed, with a new state; then applies the deferred request, which
/// may reset that state.
pub(super) fn requeue(
    txn: &mut Txn<'_>,
    index: &mut MemoryIndex,
    id: QueueId,
    state: ItemState,
    now: Time,
) -> Result<(), Fault> {
    let Some(stored) = index.item(id).cloned() else {
        return Ok(());
    };
    persist(txn, index, StoredItem { state, ..stored })?;
    apply_pending_enqueue(txn, index, id, now)
}
