//! The queue on the embedded stores.

use super::{
    Embedded, keys,
    memory_index::MemoryIndex,
    records::{Moment, StoredItem},
    txn::Txn,
};
use crate::{
    domain::{
        active_run::ActiveRun,
        name::{CampaignName, CodebaseName},
        pause::Scope,
        queue::{EnqueueRequest, Merge, QueueId, QueueItem},
        retry::ItemState,
        schedule::Pair,
        time::Time,
    },
    ports::{
        Fault, QueueStore, QueueStoreError,
        active_runs::{ClaimRequest, Claimed},
        queue_store::{ClaimFilter, EnqueueBatch, Enqueued, NextItem, Position, QueueStats},
    },
};
use async_trait::async_trait;

pub(super) fn put(
    txn: &mut Txn<'_>,
    hot: &mut MemoryIndex,
    stored: StoredItem,
) -> Result<(), Fault> {
    txn.put(keys::item(stored.item.id), &stored)?;
    hot.set_item(stored.item.id, Some(stored));
    Ok(())
}

fn insert(
    txn: &mut Txn<'_>,
    hot: &mut MemoryIndex,
    wish: EnqueueRequest,
    now: Time,
) -> Result<Enqueued, Fault> {
    let id = txn.add(keys::meta("last_queue_id"), 1)?.cast_signed();
    let item = wish.into_item(id, hot.smallest_priority());
    let answer = Enqueued {
        queue_id: id,
        bucket: item.bucket,
    };
    put(
        txn,
        hot,
        StoredItem {
            item,
            wish: None,
            state: ItemState::default(),
            added: now,
        },
    )?;
    Ok(answer)
}

/// Queues one wish, by the update rule; a held item keeps the wish until it is free.
pub(super) fn enqueue(
    txn: &mut Txn<'_>,
    hot: &mut MemoryIndex,
    wish: EnqueueRequest,
    now: Time,
) -> Result<Enqueued, Fault> {
    let Some(stored) = hot.item_of(&wish.key) else {
        return insert(txn, hot, wish, now);
    };
    let mut stored = stored.clone();
    let changed = if hot.is_held(stored.item.id) {
        match &mut stored.wish {
            Some(earlier) => earlier.absorb(wish),
            none => *none = Some(wish),
        }
        true
    } else {
        let merge = stored.item.merge(wish, hot.smallest_priority());
        if merge == Merge::Renewed {
            stored.state = ItemState::default();
        }
        merge != Merge::Unchanged
    };
    let answer = Enqueued {
        queue_id: stored.item.id,
        bucket: stored.item.bucket,
    };
    if changed {
        put(txn, hot, stored)?;
    }
    Ok(answer)
}

/// Takes an item off the queue for good.
pub(super) fn take_off(
    txn: &mut Txn<'_>,
    hot: &mut MemoryIndex,
    id: QueueId,
) -> Option<StoredItem> {
    let stored = hot.item(id)?.clone();
    txn.delete(keys::item(id));
    hot.set_item(id, None);
    Some(stored)
}

/// Takes the item of an ended run off the queue, and queues the wish that waited for it.
pub(super) fn end_item(
    txn: &mut Txn<'_>,
    hot: &mut MemoryIndex,
    id: QueueId,
    now: Time,
) -> Result<(), Fault> {
    match take_off(txn, hot, id).and_then(|stored| stored.wish) {
        Some(wish) => insert(txn, hot, wish, now).map(drop),
        None => Ok(()),
    }
}

/// An item that was held is free: the wish that waited for it updates it.
pub(super) fn free_item(
    txn: &mut Txn<'_>,
    hot: &mut MemoryIndex,
    id: QueueId,
    now: Time,
) -> Result<(), Fault> {
    let Some(mut stored) = hot.item(id).cloned() else {
        return Ok(());
    };
    let Some(wish) = stored.wish.take() else {
        return Ok(());
    };
    put(txn, hot, stored)?;
    enqueue(txn, hot, wish, now).map(drop)
}

/// An item that was held is free, and in this state.
pub(super) fn send_back(
    txn: &mut Txn<'_>,
    hot: &mut MemoryIndex,
    id: QueueId,
    state: ItemState,
    now: Time,
) -> Result<(), Fault> {
    let Some(stored) = hot.item(id).cloned() else {
        return Ok(());
    };
    put(txn, hot, StoredItem { state, ..stored })?;
    free_item(txn, hot, id, now)
}

/// The first item that the filter allows and nobody holds, with its codebase.
fn next(
    txn: &Txn<'_>,
    hot: &MemoryIndex,
    filter: &ClaimFilter,
    now: Time,
) -> Result<Option<NextItem>, Fault> {
    let closed = hot.closed(now);
    let is_closed = |scope: Scope| !closed.is_empty() && closed.contains(&scope);
    if is_closed(Scope::All) {
        return Ok(None);
    }
    let mut closed_hosts = filter.avoid_hosts.clone();
    closed_hosts.extend(
        hot.backed_off_hosts(now)
            .into_iter()
            .map(|limit| limit.host),
    );
    closed_hosts.extend(closed.iter().filter_map(|scope| {
        if let Scope::Host(host) = scope {
            Some(host.clone())
        } else {
            None
        }
    }));
    let names_one = closed.iter().any(|scope| !matches!(scope, Scope::Host(_)));
    let is_stopped = |item: &QueueItem| {
        let key = &item.key;
        is_closed(Scope::Campaign(key.campaign.clone()))
            || is_closed(Scope::Codebase(key.codebase.clone()))
            || is_closed(Scope::Bucket(item.bucket))
    };
    let allowed = |item: &&QueueItem| {
        filter
            .campaign
            .as_ref()
            .is_none_or(|campaign| *campaign == item.key.campaign)
            && !filter.except.contains(&item.key)
            && !(names_one && is_stopped(item))
    };
    let mut of_codebase: Vec<&QueueItem> = vec![];
    if let Some(codebase) = &filter.codebase {
        let is_open = |item: &&QueueItem| {
            !hot.is_held(item.id)
                && hot
                    .item(item.id)
                    .is_some_and(|stored| !stored.state.holds_back(now))
        };
        of_codebase.extend(hot.items_of(codebase).filter(is_open));
        of_codebase.sort_unstable_by_key(|item| item.order());
    }
    let all = filter
        .codebase
        .is_none()
        .then(|| hot.open_items(now))
        .into_iter()
        .flatten();
    for item in all.chain(of_codebase).filter(allowed) {
        let codebase = super::catalog::codebase(txn, &item.key.codebase)?;
        let codebase = codebase.ok_or_else(|| {
            Fault::backend(
                "look for the next item",
                format!("item {} is of no codebase", item.id),
            )
        })?;
        if codebase
            .host()
            .is_none_or(|host| !closed_hosts.contains(&host))
        {
            return Ok(Some(NextItem {
                item: item.clone(),
                codebase,
            }));
        }
    }
    Ok(None)
}

pub(super) fn claim(
    txn: &mut Txn<'_>,
    hot: &mut MemoryIndex,
    request: ClaimRequest,
) -> Result<Option<Claimed>, Fault> {
    if request
        .claimant
        .worker
        .as_ref()
        .is_some_and(|worker| hot.is_paused(&Scope::Worker(worker.clone()), request.now))
    {
        return Ok(None);
    }
    let Some(NextItem { item, codebase }) = next(txn, hot, &request.filter, request.now)? else {
        return Ok(None);
    };
    if let Some(worker) = &request.claimant.worker {
        txn.put(keys::worker_seen(worker), &Moment(request.now))?;
    }
    let run = ActiveRun {
        host: codebase.host(),
        lease_until: request.lease.map(|lease| request.now + lease),
        ..ActiveRun::new(
            request.run_id,
            request.token,
            item,
            request.claimant,
            request.now,
        )
    };
    let run = super::active_runs::keep(txn, hot, run)?;
    Ok(Some(Claimed { run, codebase }))
}

fn position(hot: &MemoryIndex, item: &QueueItem) -> Position {
    let start = Position {
        position: 1,
        wait_time: 0.0,
    };
    hot.items_before(item.order())
        .fold(start, |so_far, item| Position {
            position: so_far.position + 1,
            wait_time: so_far.wait_time + item.estimated_duration.unwrap_or(0.0),
        })
}

fn waiting(
    hot: &MemoryIndex,
    campaign: &CampaignName,
    codebase: Option<&CodebaseName>,
) -> Vec<QueueItem> {
    let wanted = |item: &&QueueItem| {
        item.key.campaign == *campaign
            && codebase.is_none_or(|codebase| *codebase == item.key.codebase)
    };
    hot.free_items().filter(wanted).cloned().collect()
}

fn stats(hot: &MemoryIndex) -> QueueStats {
    QueueStats {
        length: hot.length() as u64,
        by_bucket: hot
            .in_buckets()
            .iter()
            .filter(|(_, queued)| **queued > 0)
            .map(|(bucket, queued)| (*bucket, *queued))
            .collect(),
        by_campaign: hot
            .in_campaigns()
            .iter()
            .filter(|(_, queued)| **queued > 0)
            .map(|(name, queued)| (name.to_string(), *queued))
            .collect(),
        oldest: hot.oldest(),
    }
}

#[async_trait]
impl QueueStore for Embedded {
    async fn enqueue(&self, batch: EnqueueBatch) -> Result<Vec<Enqueued>, QueueStoreError> {
        let queued: Vec<Enqueued> = self
            .write("queue items", move |txn, hot| {
                for wish in &batch.items {
                    if !super::catalog::is_known(txn, &wish.key.codebase)? {
                        return Err(QueueStoreError::UnknownCodebase(wish.key.codebase.clone()));
                    }
                }
                for id in &batch.settles {
                    if txn.get_bytes(&keys::follow_up(*id))?.is_none() {
                        return Err(QueueStoreError::AlreadySettled);
                    }
                    txn.delete(keys::follow_up(*id));
                }
                let queued = batch
                    .items
                    .into_iter()
                    .map(|wish| enqueue(txn, hot, wish, batch.now));
                Ok::<_, QueueStoreError>(queued.collect::<Result<_, _>>()?)
            })
            .await?;
        self.availability.add(queued.len());
        Ok(queued)
    }

    async fn peek(
        &self,
        filter: &ClaimFilter,
        now: Time,
    ) -> Result<Option<NextItem>, QueueStoreError> {
        let filter = filter.clone();
        self.read("look for the next item", move |txn, hot| {
            Ok(next(txn, hot, &filter, now)?)
        })
        .await
    }

    async fn list(&self, limit: usize) -> Result<Vec<QueueItem>, QueueStoreError> {
        self.look(move |hot| hot.first_items(limit)).await
    }

    async fn position(&self, pair: &Pair) -> Result<Option<Position>, QueueStoreError> {
        let pair = pair.clone();
        self.look(move |hot| hot.first_of(&pair).map(|item| position(hot, item)))
            .await
    }

    async fn position_of(&self, id: QueueId) -> Result<Option<Position>, QueueStoreError> {
        self.look(move |hot| hot.item(id).map(|stored| position(hot, &stored.item)))
            .await
    }

    async fn waiting(
        &self,
        campaign: &CampaignName,
        codebase: Option<CodebaseName>,
    ) -> Result<Vec<QueueItem>, QueueStoreError> {
        let campaign = campaign.clone();
        self.look(move |hot| waiting(hot, &campaign, codebase.as_ref()))
            .await
    }

    async fn remove(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, QueueStoreError> {
        let ids = ids.to_vec();
        self.write("take items off the queue", move |txn, hot| {
            let free = ids
                .into_iter()
                .filter(|id| !hot.is_held(*id))
                .collect::<Vec<_>>();
            Ok(free
                .into_iter()
                .filter_map(|id| take_off(txn, hot, id))
                .map(|stored| stored.item.id)
                .collect())
        })
        .await
    }

    async fn stats(&self) -> Result<QueueStats, QueueStoreError> {
        self.look(stats).await
    }
}
