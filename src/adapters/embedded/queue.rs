//! The queue on the embedded stores. Free items stand in the table of open ones, held items in that of held ones, both
//! in queue order, so that a claim reads the first entry however long the queue is.

use super::{
    Embedded, keys,
    records::{Moment, Queued, StoredItem},
    txn::{Txn, decode},
};
use crate::{
    domain::{
        active_run::ActiveRun,
        codebase::Codebase,
        name::{CampaignName, CodebaseName},
        queue::{Bucket, Enqueue, Merge, QueueId, QueueItem},
        schedule::Pair,
        time::Time,
    },
    ports::{
        Fault, QueueStore, QueueStoreError,
        queue_store::{ClaimFilter, ClaimRequest, EnqueueBatch, Enqueued, Position, QueueStats},
    },
};
use async_trait::async_trait;
use std::ops::ControlFlow;

fn smallest_priority(txn: &Txn<'_>) -> Result<Option<i64>, Fault> {
    Ok(txn.first(&keys::priorities())?.and_then(|(key, _)| keys::first_number(&key)))
}

fn put_in_order(txn: &mut Txn<'_>, stored: &StoredItem) -> Result<(), Fault> {
    let item = &stored.item;
    let place = if stored.held_by.is_some() { keys::held(item) } else { keys::open(item) };
    txn.put(place, &Queued::from(item))?;
    txn.put_bytes(keys::priority(item), vec![]);
    txn.put(keys::item(item.id), stored)
}

fn take_out_of_order(txn: &mut Txn<'_>, stored: &StoredItem) {
    let item = &stored.item;
    txn.delete(if stored.held_by.is_some() { keys::held(item) } else { keys::open(item) });
    txn.delete(keys::priority(item));
}

fn insert(txn: &mut Txn<'_>, wish: Enqueue, now: Time) -> Result<Enqueued, Fault> {
    let id = txn.add(keys::meta("last_queue_id"), 1)?.cast_signed();
    let item = wish.into_item(id, smallest_priority(txn)?);
    let answer = Enqueued { queue_id: id, bucket: item.bucket };
    txn.put(keys::item_of(&item.key), &id)?;
    txn.put_bytes(keys::added(now, id), vec![]);
    txn.add(keys::queued_in_bucket(item.bucket), 1)?;
    txn.add(keys::queued_in_campaign(&item.key.campaign), 1)?;
    put_in_order(txn, &StoredItem { item, held_by: None, wish: None, added: now })?;
    Ok(answer)
}

/// Queues one wish, by the update rule; a held item keeps the wish until it is free.
pub(super) fn enqueue(txn: &mut Txn<'_>, wish: Enqueue, now: Time) -> Result<Enqueued, Fault> {
    let Some(id) = txn.get::<QueueId>(&keys::item_of(&wish.key))? else { return insert(txn, wish, now) };
    let Some(mut stored) = txn.get::<StoredItem>(&keys::item(id))? else {
        return Err(Fault::backend("queue an item", format!("item {id} is listed but not stored")));
    };
    if stored.held_by.is_some() {
        match &mut stored.wish {
            Some(earlier) => earlier.absorb(wish),
            none => *none = Some(wish),
        }
        txn.put(keys::item(id), &stored)?;
        return Ok(Enqueued { queue_id: id, bucket: stored.item.bucket });
    }
    let mut changed = stored.item.clone();
    if changed.merge(wish, smallest_priority(txn)?) == Merge::Updated {
        take_out_of_order(txn, &stored);
        txn.add(keys::queued_in_bucket(stored.item.bucket), -1)?;
        txn.add(keys::queued_in_bucket(changed.bucket), 1)?;
        stored.item = changed;
        put_in_order(txn, &stored)?;
    }
    Ok(Enqueued { queue_id: id, bucket: stored.item.bucket })
}

/// Takes an item off the queue for good; answers the wish that waited for it.
pub(super) fn take_off(txn: &mut Txn<'_>, stored: &StoredItem) -> Result<(), Fault> {
    take_out_of_order(txn, stored);
    let item = &stored.item;
    txn.delete(keys::item(item.id));
    txn.delete(keys::item_of(&item.key));
    txn.delete(keys::added(stored.added, item.id));
    txn.add(keys::queued_in_bucket(item.bucket), -1)?;
    txn.add(keys::queued_in_campaign(&item.key.campaign), -1)?;
    Ok(())
}

/// Takes the item of an ended run off the queue, and queues the wish that waited for it.
pub(super) fn end_item(txn: &mut Txn<'_>, id: QueueId, now: Time) -> Result<(), Fault> {
    let Some(stored) = txn.get::<StoredItem>(&keys::item(id))? else { return Ok(()) };
    take_off(txn, &stored)?;
    if let Some(wish) = stored.wish {
        insert(txn, wish, now)?;
    }
    Ok(())
}

/// Puts a held item back into its place, updated by the wish that waited for it.
pub(super) fn free_item(txn: &mut Txn<'_>, id: QueueId, now: Time) -> Result<(), Fault> {
    let Some(mut stored) = txn.get::<StoredItem>(&keys::item(id))? else { return Ok(()) };
    take_out_of_order(txn, &stored);
    stored.held_by = None;
    let wish = stored.wish.take();
    put_in_order(txn, &stored)?;
    if let Some(wish) = wish {
        enqueue(txn, wish, now)?;
    }
    Ok(())
}

struct Rules<'a> {
    filter: &'a ClaimFilter,
    closed_hosts: Vec<String>,
}

impl<'a> Rules<'a> {
    fn new(txn: &Txn<'_>, filter: &'a ClaimFilter, now: Time) -> Result<Self, Fault> {
        let mut closed_hosts = filter.avoid_hosts.clone();
        closed_hosts.extend(super::claims::limited_hosts(txn, now)?.into_iter().map(|limit| limit.host));
        Ok(Self { filter, closed_hosts })
    }

    fn allow(&self, txn: &Txn<'_>, queued: &Queued) -> Result<bool, Fault> {
        let key = &queued.key;
        let wanted = self.filter.campaign.as_ref().is_none_or(|c| *c == key.campaign)
            && self.filter.codebase.as_ref().is_none_or(|c| *c == key.codebase)
            && !self.filter.except.contains(key);
        if !wanted || self.closed_hosts.is_empty() {
            return Ok(wanted);
        }
        let codebase = super::catalog::codebase(txn, &key.codebase)?;
        let host = codebase.as_ref().and_then(Codebase::host);
        Ok(host.is_none_or(|host| !self.closed_hosts.iter().any(|closed| closed == host)))
    }
}

/// The first item that the filter allows and nobody holds.
fn next(txn: &Txn<'_>, filter: &ClaimFilter, now: Time) -> Result<Option<StoredItem>, Fault> {
    let rules = Rules::new(txn, filter, now)?;
    if let Some(codebase) = &filter.codebase {
        return next_of_codebase(txn, codebase, &rules);
    }
    let mut found = None;
    txn.scan(&keys::all_open(), |key, value| -> Result<_, Fault> {
        if !rules.allow(txn, &decode(value)?)? {
            return Ok(ControlFlow::Continue(()));
        }
        found = keys::last_number(key);
        Ok(ControlFlow::Break(()))
    })?;
    found.map_or(Ok(None), |id| txn.get(&keys::item(id)))
}

fn next_of_codebase(txn: &Txn<'_>, codebase: &CodebaseName, rules: &Rules<'_>) -> Result<Option<StoredItem>, Fault> {
    let mut best: Option<StoredItem> = None;
    for stored in items(txn, &keys::items_of_codebase(codebase))? {
        let better = best.as_ref().is_none_or(|b| stored.item.order() < b.item.order());
        if stored.held_by.is_none() && better && rules.allow(txn, &Queued::from(&stored.item))? {
            best = Some(stored);
        }
    }
    Ok(best)
}

fn items(txn: &Txn<'_>, prefix: &keys::Key) -> Result<Vec<StoredItem>, Fault> {
    let ids: Vec<QueueId> = txn.list(prefix, usize::MAX)?;
    let found = ids.into_iter().map(|id| txn.get(&keys::item(id)));
    Ok(found.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
}

fn claim(txn: &mut Txn<'_>, request: ClaimRequest) -> Result<Option<ActiveRun>, Fault> {
    let Some(mut stored) = next(txn, &request.filter, request.now)? else { return Ok(None) };
    take_out_of_order(txn, &stored);
    stored.held_by = Some(request.run_id.clone());
    put_in_order(txn, &stored)?;
    if let Some(worker) = &request.claimant.worker {
        txn.put(keys::worker_seen(worker), &Moment(request.now))?;
    }
    let run = ActiveRun::new(request.run_id, request.token, stored.item, request.claimant, request.now);
    txn.put(keys::active(&run.id), &run)?;
    Ok(Some(run))
}

fn position(txn: &Txn<'_>, pair: &Pair) -> Result<Option<Position>, Fault> {
    let items = items(txn, &keys::items_of_pair(pair))?;
    let Some(first) = items.iter().map(|stored| &stored.item).min_by_key(|item| item.order()) else { return Ok(None) };
    let mut found = Position { position: 1, wait_time: 0.0 };
    for (table, end) in [(keys::all_open(), keys::open(first)), (keys::all_held(), keys::held(first))] {
        txn.scan(&table, |key, value| -> Result<_, Fault> {
            if key >= end.0.as_slice() {
                return Ok(ControlFlow::Break(()));
            }
            found.position += 1;
            found.wait_time += decode::<Queued>(value)?.estimate.unwrap_or(0.0);
            Ok(ControlFlow::Continue(()))
        })?;
    }
    Ok(Some(found))
}

/// The first ids of a table in queue order, with their places.
fn first_ids(txn: &Txn<'_>, table: &keys::Key, limit: usize) -> Result<Vec<(Vec<u8>, QueueId)>, Fault> {
    let mut ids = vec![];
    txn.scan(table, |key, _| -> Result<_, Fault> {
        if ids.len() >= limit {
            return Ok(ControlFlow::Break(()));
        }
        let place = key.get(1..).unwrap_or_default().to_vec();
        ids.extend(keys::last_number(key).map(|id| (place, id)));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(ids)
}

fn list(txn: &Txn<'_>, limit: usize) -> Result<Vec<QueueItem>, Fault> {
    let mut ids = first_ids(txn, &keys::all_open(), limit)?;
    ids.extend(first_ids(txn, &keys::all_held(), limit)?);
    ids.sort_unstable();
    ids.truncate(limit);
    let stored = ids.into_iter().map(|(_, id)| txn.get::<StoredItem>(&keys::item(id)));
    Ok(stored.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().map(|stored| stored.item).collect())
}

fn waiting(txn: &Txn<'_>, campaign: &CampaignName, codebase: Option<&CodebaseName>) -> Result<Vec<QueueItem>, Fault> {
    let mut ids = vec![];
    txn.scan(&keys::all_open(), |key, value| -> Result<_, Fault> {
        let queued: Queued = decode(value)?;
        if queued.key.campaign == *campaign && codebase.is_none_or(|c| *c == queued.key.codebase) {
            ids.extend(keys::last_number(key));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let stored = ids.into_iter().map(|id| txn.get::<StoredItem>(&keys::item(id)));
    Ok(stored.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().map(|stored| stored.item).collect())
}

fn remove(txn: &mut Txn<'_>, ids: &[QueueId]) -> Result<Vec<QueueId>, Fault> {
    let mut removed = vec![];
    for id in ids {
        let stored = txn.get::<StoredItem>(&keys::item(*id))?;
        if let Some(stored) = stored.filter(|stored| stored.held_by.is_none()) {
            take_off(txn, &stored)?;
            removed.push(*id);
        }
    }
    Ok(removed)
}

fn stats(txn: &Txn<'_>) -> Result<QueueStats, Fault> {
    let mut stats = QueueStats::default();
    for bucket in Bucket::ALL {
        let queued = txn.number(&keys::queued_in_bucket(bucket))?;
        stats.length += queued;
        if queued > 0 {
            stats.by_bucket.insert(bucket, queued);
        }
    }
    let prefix = keys::queued_in_campaigns();
    txn.scan(&prefix, |key, value| -> Result<_, Fault> {
        let name = String::from_utf8_lossy(key.get(prefix.0.len()..).unwrap_or_default()).into_owned();
        stats.by_campaign.insert(name, decode(value)?);
        Ok(ControlFlow::Continue(()))
    })?;
    let oldest = txn.first(&keys::all_added())?.and_then(|(key, _)| keys::first_number(&key));
    stats.oldest = oldest.and_then(Time::from_timestamp_micros);
    Ok(stats)
}

#[async_trait]
impl QueueStore for Embedded {
    async fn enqueue(&self, batch: EnqueueBatch) -> Result<Vec<Enqueued>, QueueStoreError> {
        self.write("queue items", move |txn| {
            for id in &batch.settles {
                txn.delete(keys::follow_up(*id));
            }
            let mut answers = Vec::with_capacity(batch.items.len());
            for wish in batch.items {
                if !super::catalog::is_known(txn, &wish.key.codebase)? {
                    return Err(QueueStoreError::UnknownCodebase(wish.key.codebase));
                }
                answers.push(enqueue(txn, wish, batch.now)?);
            }
            Ok(answers)
        })
        .await
    }

    async fn claim(&self, request: ClaimRequest) -> Result<Option<ActiveRun>, QueueStoreError> {
        self.write("claim an item", move |txn| Ok(claim(txn, request)?)).await
    }

    async fn peek(&self, filter: &ClaimFilter, now: Time) -> Result<Option<QueueItem>, QueueStoreError> {
        let filter = filter.clone();
        self.read("look for the next item", move |txn| Ok(next(txn, &filter, now)?.map(|stored| stored.item))).await
    }

    async fn list(&self, limit: usize) -> Result<Vec<QueueItem>, QueueStoreError> {
        self.read("list the queue", move |txn| Ok(list(txn, limit)?)).await
    }

    async fn position(&self, pair: &Pair) -> Result<Option<Position>, QueueStoreError> {
        let pair = pair.clone();
        self.read("find a place in the queue", move |txn| Ok(position(txn, &pair)?)).await
    }

    async fn waiting(&self, campaign: &CampaignName, codebase: Option<CodebaseName>) -> Result<Vec<QueueItem>, QueueStoreError> {
        let campaign = campaign.clone();
        self.read("list a campaign's items", move |txn| Ok(waiting(txn, &campaign, codebase.as_ref())?)).await
    }

    async fn remove(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, QueueStoreError> {
        let ids = ids.to_vec();
        self.write("take items off the queue", move |txn| Ok(remove(txn, &ids)?)).await
    }

    async fn stats(&self) -> Result<QueueStats, QueueStoreError> {
        self.read("count the queue", |txn| Ok(stats(txn)?)).await
    }
}
