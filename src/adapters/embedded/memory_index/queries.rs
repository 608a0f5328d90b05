//! Reads of the index in memory.

use super::{ItemStatus, MemoryIndex, QueuePosition};
use crate::{
    adapters::embedded::records::StoredItem,
    domain::{
        active_run::{ActiveRun, Claimant},
        name::{CampaignName, CodebaseName, RunId},
        pause::{ConcurrencyLimit, Pause, Scope},
        queue::{Bucket, QueueId, QueueItem, QueueKey},
        schedule::Pair,
        time::Time,
    },
    ports::host_backoff::HostBackoff,
};
use std::collections::{BTreeMap, BTreeSet};

/// The queue.
impl MemoryIndex {
    /// Returns the item of that id.
    pub(in super::super) fn item(&self, id: QueueId) -> Option<&StoredItem> {
        self.items.get(&id)
    }

    /// Returns the item of that key.
    pub(in super::super) fn item_by_key(&self, key: &QueueKey) -> Option<&StoredItem> {
        self.items.get(self.ids_by_key.get(key)?)
    }

    /// Returns whether an active run has that item.
    pub(in super::super) fn is_claimed(&self, id: QueueId) -> bool {
        self.run_by_item.contains_key(&id)
    }

    /// Returns the smallest priority in the queue, `None` when it is empty.
    pub(in super::super) fn smallest_priority(&self) -> Option<i64> {
        self.priorities.first().map(|(priority, _)| *priority)
    }

    /// Returns when the oldest item was added.
    pub(in super::super) fn oldest(&self) -> Option<Time> {
        self.added.first().map(|(added, _)| *added)
    }

    fn positions_of(&self, status: ItemStatus) -> &BTreeSet<QueuePosition> {
        &self.positions[status as usize]
    }

    fn item_at(&self, (_, _, id): &QueuePosition) -> Option<&StoredItem> {
        self.items.get(id)
    }

    /// Returns the items that may be claimed, in order, those whose snooze is over included.
    pub(in super::super) fn claimable_items(&self, now: Time) -> impl Iterator<Item = &QueueItem> {
        // Those that no claim has moved yet; each claim moves all.
        let mut awake: Vec<QueuePosition> = self
            .wake_times
            .iter()
            .take_while(|(time, _)| *time <= now)
            .filter_map(|(_, id)| Some(self.items.get(id)?.item.order()))
            .collect();
        awake.sort_unstable();
        let mut awake = awake.into_iter().peekable();
        let mut waiting = self
            .positions_of(ItemStatus::Waiting)
            .iter()
            .copied()
            .peekable();
        let in_order = std::iter::from_fn(move || match (waiting.peek(), awake.peek()) {
            (Some(a), Some(b)) if b < a => awake.next(),
            (Some(_), _) => waiting.next(),
            (None, _) => awake.next(),
        });
        in_order
            .filter_map(|position| self.item_at(&position))
            .map(|stored| &stored.item)
    }

    /// Returns the items that no active run has, in order.
    pub(in super::super) fn unclaimed_items(&self) -> impl Iterator<Item = &QueueItem> {
        let unclaimed = [ItemStatus::Waiting, ItemStatus::Snoozed, ItemStatus::Parked];
        let mut positions: Vec<&QueuePosition> = unclaimed
            .into_iter()
            .flat_map(|status| self.positions_of(status))
            .collect();
        positions.sort_unstable();
        positions
            .into_iter()
            .filter_map(|position| self.item_at(position))
            .map(|stored| &stored.item)
    }

    /// Returns the parked items with ids above `after`, by id.
    pub(in super::super) fn parked(&self, after: Option<QueueId>, limit: usize) -> Vec<StoredItem> {
        let positions = self
            .positions_of(ItemStatus::Parked)
            .iter()
            .filter(|(_, _, id)| after.is_none_or(|after| *id > after));
        let mut parked: Vec<&StoredItem> = positions
            .filter_map(|position| self.item_at(position))
            .collect();
        parked.sort_unstable_by_key(|stored| stored.item.id);
        parked.into_iter().take(limit).cloned().collect()
    }

    /// Returns all items before a position, in no particular order.
    pub(in super::super) fn items_before(
        &self,
        position: QueuePosition,
    ) -> impl Iterator<Item = &QueueItem> {
        let positions = self
            .positions
            .iter()
            .flat_map(move |positions| positions.range(..position));
        positions
            .filter_map(|position| self.item_at(position))
            .map(|stored| &stored.item)
    }

    /// Returns the first items in order, claimed ones included.
    pub(in super::super) fn first_items(&self, limit: usize) -> Vec<QueueItem> {
        // The first items overall are among the first of each status.
        let mut positions: Vec<QueuePosition> = self
            .positions
            .iter()
            .flat_map(|positions| positions.iter().take(limit))
            .copied()
            .collect();
        positions.sort_unstable();
        positions
            .iter()
            .take(limit)
            .filter_map(|position| self.item_at(position))
            .map(|stored| stored.item.clone())
            .collect()
    }

    /// Returns the items of a codebase, by key.
    pub(in super::super) fn items_of_codebase(
        &self,
        codebase: &CodebaseName,
    ) -> impl Iterator<Item = &QueueItem> {
        // The first campaign name sorts before every other, so the range starts at the codebase's
        // first key.
        let from = CampaignName::first().map(|campaign| QueueKey {
            codebase: codebase.clone(),
            campaign,
            change_set: None,
        });
        let keys = from
            .map(|from| self.ids_by_key.range(from..))
            .into_iter()
            .flatten();
        keys.take_while(move |(key, _)| key.codebase == *codebase)
            .filter_map(|(_, id)| self.items.get(id))
            .map(|stored| &stored.item)
    }

    /// Returns the first item of a pair, in queue order.
    pub(in super::super) fn first_item_of_pair(&self, pair: &Pair) -> Option<&QueueItem> {
        self.items_of_codebase(&pair.codebase)
            .filter(|item| item.key.campaign == pair.campaign)
            .min_by_key(|item| item.order())
    }

    /// Returns the number of items in each bucket; a bucket may have none.
    pub(in super::super) fn count_by_bucket(&self) -> &BTreeMap<Bucket, u64> {
        &self.count_by_bucket
    }

    /// Returns the number of items of each campaign; a campaign may have none.
    pub(in super::super) fn count_by_campaign(&self) -> &BTreeMap<CampaignName, u64> {
        &self.count_by_campaign
    }

    /// Returns the number of items, claimed ones included.
    pub(in super::super) fn length(&self) -> usize {
        self.items.len()
    }
}

/// Active runs, and what keeps items from being claimed.
impl MemoryIndex {
    /// Returns the active run of that id.
    pub(in super::super) fn active_run(&self, id: &RunId) -> Option<&ActiveRun> {
        self.active_runs.get(id)
    }

    /// Returns the active run of that id if the token is that of its claim.
    pub(in super::super) fn claimed_run(&self, id: &RunId, token: &str) -> Option<&ActiveRun> {
        self.active_runs.get(id).filter(|run| run.token == token)
    }

    /// Returns all active runs, the oldest first.
    pub(in super::super) fn active_runs(&self) -> Vec<ActiveRun> {
        let mut runs: Vec<ActiveRun> = self.active_runs.values().cloned().collect();
        runs.sort_by(|a, b| (a.start_time, &a.id).cmp(&(b.start_time, &b.id)));
        runs
    }

    /// Returns how many active runs a worker holds.
    pub(in super::super) fn count_held_by(&self, worker: &str) -> u64 {
        let is_held = |run: &&ActiveRun| run.claimant.worker.as_deref() == Some(worker);
        self.active_runs.values().filter(is_held).count() as u64
    }

    /// Returns the active runs of that worker with that backchannel, the oldest first.
    pub(in super::super) fn held_by(&self, claimant: &Claimant) -> Vec<ActiveRun> {
        if claimant.backchannel.is_none() {
            return vec![];
        }
        let is_same = |run: &&ActiveRun| {
            run.claimant.backchannel == claimant.backchannel
                && run.claimant.worker == claimant.worker
        };
        let mut runs: Vec<ActiveRun> = self.active_runs.values().filter(is_same).cloned().collect();
        runs.sort_by(|a, b| (a.start_time, &a.id).cmp(&(b.start_time, &b.id)));
        runs
    }

    /// Returns the pauses that hold at that time, by scope.
    pub(in super::super) fn pauses(&self, now: Time) -> impl Iterator<Item = &Pause> {
        self.pauses.values().filter(move |pause| pause.holds(now))
    }

    /// Returns whether a scope itself is paused at that time.
    pub(in super::super) fn is_paused(&self, scope: &Scope, now: Time) -> bool {
        self.pauses.get(scope).is_some_and(|pause| pause.holds(now))
    }

    /// Returns all concurrency limits, by scope.
    pub(in super::super) fn limits(&self) -> impl Iterator<Item = ConcurrencyLimit> {
        self.limits.iter().map(|(scope, most)| ConcurrencyLimit {
            scope: scope.clone(),
            most: *most,
        })
    }

    /// Returns the scopes that nothing may be claimed of: paused, or at their concurrency limit.
    pub(in super::super) fn blocked_scopes(&self, now: Time) -> BTreeSet<&Scope> {
        let at_limit = self.limits.iter().filter(|(scope, most)| {
            // A limit of zero blocks a scope of which nothing has ever run, too.
            **most == 0
                || self
                    .running
                    .get(scope)
                    .is_some_and(|running| *running >= u64::from(**most))
        });
        self.pauses(now)
            .map(|pause| &pause.scope)
            .chain(at_limit.map(|(scope, _)| scope))
            .collect()
    }

    /// Returns the end of a host's backoff, even one that has passed.
    pub(in super::super) fn host_backoff(&self, host: &str) -> Option<Time> {
        self.host_backoffs.get(host).copied()
    }

    /// Returns hosts whose backoff ended before that time, at most `limit`.
    pub(in super::super) fn ended_backoffs(&self, before: Time, limit: usize) -> Vec<String> {
        let ended = self
            .host_backoffs
            .iter()
            .filter(|(_, until)| **until < before);
        ended.take(limit).map(|(host, _)| host.clone()).collect()
    }

    /// Returns the hosts that are backing off at that time, by name.
    pub(in super::super) fn backed_off_hosts(&self, now: Time) -> Vec<HostBackoff> {
        self.host_backoffs
            .iter()
            .filter(|(_, until)| **until > now)
            .map(|(host, until)| HostBackoff {
                host: host.clone(),
                until: *until,
            })
            .collect()
    }
}
