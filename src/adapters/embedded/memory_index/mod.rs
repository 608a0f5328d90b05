//! What every request needs, in memory: the queue, active runs, pauses, limits and host backoffs,
//! in the orders that are read.
//!
//! Each change is also a record in the key-value store, from which all of this is read again when
//! the store is opened. This file changes the index, `queries.rs` reads it.

mod passed_hosts;
mod queries;

use super::{
    keys,
    records::{Moment, StoredItem},
    txn::{Txn, decode},
};
use crate::{
    domain::{
        active_run::ActiveRun,
        name::{CampaignName, RunId},
        pause::{ConcurrencyLimit, Pause, Scope},
        queue::{Bucket, QueueId, QueueKey},
        time::Time,
    },
    ports::Fault,
};
use passed_hosts::PassedHosts;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
};

/// A position in the queue: bucket, priority and id, in the order in which items are claimed.
pub(super) type QueuePosition = (Bucket, i64, QueueId);

/// The value that a change replaced, so that the change can be undone.
enum Undo {
    Item(QueueId, Option<StoredItem>),
    ActiveRun(RunId, Option<ActiveRun>),
    HostBackoff(String, Option<Time>),
    Pause(Scope, Option<Pause>),
    Limit(Scope, Option<u32>),
}

/// The queue, active runs, pauses, limits and host backoffs.
#[derive(Default)]
pub(super) struct MemoryIndex {
    items: HashMap<QueueId, StoredItem>,
    ids_by_key: BTreeMap<QueueKey, QueueId>,
    /// The positions of the items of each [`ItemStatus`]. Every item is in exactly one of these
    /// sets.
    positions: [BTreeSet<QueuePosition>; 4],
    /// When the snoozed items wake up.
    wake_times: BTreeSet<(Time, QueueId)>,
    priorities: BTreeSet<(i64, QueueId)>,
    added: BTreeSet<(Time, QueueId)>,
    count_by_bucket: BTreeMap<Bucket, u64>,
    count_by_campaign: BTreeMap<CampaignName, u64>,
    active_runs: HashMap<RunId, ActiveRun>,
    /// The active run of each claimed item.
    run_by_item: HashMap<QueueId, RunId>,
    /// The end of the backoff of each host, passed ones included.
    host_backoffs: BTreeMap<String, Time>,
    pauses: BTreeMap<Scope, Pause>,
    limits: BTreeMap<Scope, u32>,
    /// Number of active runs by campaign and by host.
    running: BTreeMap<Scope, u64>,
    /// The hosts of items that were passed over because of them.
    pub(super) passed_hosts: PassedHosts,
    /// What the changes since the last stored batch replaced, the newest last.
    undo_log: Vec<Undo>,
}

/// What an item waits for.
#[derive(Clone, Copy)]
enum ItemStatus {
    /// It may be claimed.
    Waiting,
    /// It may be claimed, but not before some time.
    Snoozed,
    /// Somebody has to unpark it.
    Parked,
    /// An active run has it.
    Claimed,
}

impl ItemStatus {
    fn of(stored: &StoredItem, claimed: bool) -> Self {
        match &stored.state {
            _ if claimed => Self::Claimed,
            state if state.parked.is_some() => Self::Parked,
            state if state.not_before.is_some() => Self::Snoozed,
            _ => Self::Waiting,
        }
    }
}

/// Where an item stands.
#[derive(Clone, Copy)]
struct Place {
    status: ItemStatus,
    position: QueuePosition,
    not_before: Option<Time>,
}

impl Place {
    fn of(stored: &StoredItem, claimed: bool) -> Self {
        Self {
            status: ItemStatus::of(stored, claimed),
            position: stored.item.order(),
            not_before: stored.state.not_before,
        }
    }
}

fn add_to_count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, change: i64) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add_signed(change);
}

impl MemoryIndex {
    /// Reads the index from the key-value store.
    ///
    /// # Errors
    ///
    /// Returns [`Fault::Backend`] when a record cannot be read.
    pub(super) fn load(txn: &Txn<'_>) -> Result<Self, Fault> {
        let mut index = Self::default();
        // Active runs first: an item's status depends on whether it is claimed.
        for run in txn.list::<ActiveRun>(&keys::all_active(), usize::MAX)? {
            index.index_active_run(run.id.clone(), Some(run));
        }
        txn.scan(&keys::items(), |_, value| -> Result<_, Fault> {
            let stored: StoredItem = decode(value)?;
            index.index_item(stored.item.id, Some(stored));
            Ok(ControlFlow::Continue(()))
        })?;
        txn.scan(&keys::all_hosts(), |key, value| -> Result<_, Fault> {
            let Moment(until) = decode(value)?;
            let host = key.get(1..key.len() - 1).unwrap_or_default();
            let host = String::from_utf8_lossy(host).into_owned();
            index.host_backoffs.insert(host, until);
            Ok(ControlFlow::Continue(()))
        })?;
        let pauses: Vec<Pause> = txn.list(&keys::pauses(), usize::MAX)?;
        index.pauses = pauses
            .into_iter()
            .map(|pause| (pause.scope.clone(), pause))
            .collect();
        let limits: Vec<ConcurrencyLimit> = txn.list(&keys::limits(), usize::MAX)?;
        index.limits = limits
            .into_iter()
            .map(|limit| (limit.scope, limit.most))
            .collect();
        Ok(index)
    }

    /// Sets or removes an item in all its indexes; returns the one that was there.
    fn index_item(&mut self, id: QueueId, new: Option<StoredItem>) -> Option<StoredItem> {
        let claimed = self.run_by_item.contains_key(&id);
        // Before the item is replaced, since its position is part of it.
        self.remove_position(id);
        let earlier = match &new {
            Some(stored) => self.items.insert(id, stored.clone()),
            None => self.items.remove(&id),
        };
        if let Some(earlier) = &earlier {
            let item = &earlier.item;
            self.priorities.remove(&(item.priority, id));
            self.added.remove(&(earlier.added, id));
            self.ids_by_key.remove(&item.key);
            add_to_count(&mut self.count_by_bucket, item.bucket, -1);
            add_to_count(&mut self.count_by_campaign, item.key.campaign.clone(), -1);
        }
        if let Some(stored) = new {
            self.add_position(id, Place::of(&stored, claimed));
            let item = stored.item;
            self.priorities.insert((item.priority, id));
            self.added.insert((stored.added, id));
            add_to_count(&mut self.count_by_bucket, item.bucket, 1);
            add_to_count(&mut self.count_by_campaign, item.key.campaign.clone(), 1);
            self.ids_by_key.insert(item.key, id);
        }
        earlier
    }

    /// Sets or removes an active run in all its indexes; returns the one that was there.
    fn index_active_run(&mut self, id: RunId, new: Option<ActiveRun>) -> Option<ActiveRun> {
        let earlier = self.active_runs.remove(&id);
        if let Some(earlier) = &earlier {
            self.run_by_item.remove(&earlier.item.id);
            self.count_running(earlier, -1);
            self.update_position(earlier.item.id);
        }
        if let Some(run) = new {
            let item = run.item.id;
            self.run_by_item.insert(item, id.clone());
            self.count_running(&run, 1);
            self.active_runs.insert(id, run);
            self.update_position(item);
        }
        earlier
    }

    /// Moves an item to the set of its present status.
    fn update_position(&mut self, id: QueueId) {
        self.remove_position(id);
        let claimed = self.run_by_item.contains_key(&id);
        let place = self.items.get(&id).map(|stored| Place::of(stored, claimed));
        if let Some(place) = place {
            self.add_position(id, place);
        }
    }

    fn add_position(&mut self, id: QueueId, place: Place) {
        self.positions[place.status as usize].insert(place.position);
        if let (ItemStatus::Snoozed, Some(time)) = (place.status, place.not_before) {
            self.wake_times.insert((time, id));
        }
    }

    /// Moves the items whose snooze is over to those that may be claimed.
    pub(super) fn wake(&mut self, now: Time) {
        while let Some((time, id)) = self
            .wake_times
            .first()
            .copied()
            .filter(|(time, _)| *time <= now)
        {
            self.wake_times.remove(&(time, id));
            let Some(position) = self.items.get(&id).map(|stored| stored.item.order()) else {
                continue;
            };
            if self.positions[ItemStatus::Snoozed as usize].remove(&position) {
                self.positions[ItemStatus::Waiting as usize].insert(position);
            }
        }
    }

    fn remove_position(&mut self, id: QueueId) {
        let Some(stored) = self.items.get(&id) else {
            return;
        };
        let position = stored.item.order();
        if let Some(time) = stored.state.not_before {
            self.wake_times.remove(&(time, id));
        }
        for positions in &mut self.positions {
            positions.remove(&position);
        }
    }

    fn count_running(&mut self, run: &ActiveRun, change: i64) {
        let campaign = Scope::Campaign(run.key().campaign.clone());
        add_to_count(&mut self.running, campaign, change);
        if let Some(host) = &run.host {
            add_to_count(&mut self.running, Scope::Host(host.clone()), change);
        }
    }

    /// Sets or removes an item.
    pub(super) fn set_item(&mut self, id: QueueId, new: Option<StoredItem>) {
        let earlier = self.index_item(id, new);
        self.undo_log.push(Undo::Item(id, earlier));
    }

    /// Sets or removes an active run.
    pub(super) fn set_active_run(&mut self, id: &RunId, new: Option<ActiveRun>) {
        let earlier = self.index_active_run(id.clone(), new);
        self.undo_log.push(Undo::ActiveRun(id.clone(), earlier));
    }

    /// Sets or removes the end of a host's backoff.
    pub(super) fn set_host_backoff(&mut self, host: String, until: Option<Time>) {
        let earlier = match until {
            Some(until) => self.host_backoffs.insert(host.clone(), until),
            None => self.host_backoffs.remove(&host),
        };
        self.undo_log.push(Undo::HostBackoff(host, earlier));
    }

    /// Sets or removes the pause of a scope; returns whether there was one.
    pub(super) fn set_pause(&mut self, scope: &Scope, new: Option<Pause>) -> bool {
        let earlier = match new {
            Some(pause) => self.pauses.insert(scope.clone(), pause),
            None => self.pauses.remove(scope),
        };
        let was_paused = earlier.is_some();
        self.undo_log.push(Undo::Pause(scope.clone(), earlier));
        was_paused
    }

    /// Sets or removes the concurrency limit of a scope; returns whether there was one.
    pub(super) fn set_limit(&mut self, scope: &Scope, new: Option<u32>) -> bool {
        let earlier = match new {
            Some(most) => self.limits.insert(scope.clone(), most),
            None => self.limits.remove(scope),
        };
        let was_limited = earlier.is_some();
        self.undo_log.push(Undo::Limit(scope.clone(), earlier));
        was_limited
    }

    /// Returns the savepoint that [`Self::roll_back_to`] takes to undo all later changes.
    pub(super) fn savepoint(&self) -> usize {
        self.undo_log.len()
    }

    /// Undoes all changes since the savepoint, the newest first.
    pub(super) fn roll_back_to(&mut self, savepoint: usize) {
        // They may be those of codebases whose change is undone.
        self.passed_hosts.forget();
        while self.undo_log.len() > savepoint {
            match self.undo_log.pop() {
                Some(Undo::Item(id, earlier)) => drop(self.index_item(id, earlier)),
                Some(Undo::ActiveRun(id, earlier)) => drop(self.index_active_run(id, earlier)),
                Some(Undo::HostBackoff(host, earlier)) => {
                    restore(&mut self.host_backoffs, host, earlier);
                }
                Some(Undo::Pause(scope, earlier)) => restore(&mut self.pauses, scope, earlier),
                Some(Undo::Limit(scope, earlier)) => restore(&mut self.limits, scope, earlier),
                None => return,
            }
        }
    }

    /// Forgets how to undo the changes so far: they are stored.
    pub(super) fn discard_undo_log(&mut self) {
        self.undo_log.clear();
    }
}

fn restore<K: Ord, V>(values: &mut BTreeMap<K, V>, key: K, earlier: Option<V>) {
    match earlier {
        Some(value) => drop(values.insert(key, value)),
        None => drop(values.remove(&key)),
    }
}
