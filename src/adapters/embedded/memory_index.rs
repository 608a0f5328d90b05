//! What every request needs: the queue, the claims and the limited hosts. All of it is in memory, in the orders that are
//! asked for; each change is also a record in the key-value store, from which all of this is read again at the start.

use super::{
    keys,
    records::{Moment, StoredItem},
    txn::{Txn, decode},
};
use crate::{
    domain::{
        active_run::ActiveRun,
        name::{CampaignName, CodebaseName, RunId},
        pause::{ConcurrencyLimit, Pause, Scope},
        queue::{Bucket, QueueId, QueueItem, QueueKey},
        schedule::Pair,
        time::Time,
    },
    ports::{Fault, host_backoff::HostBackoff},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
};

/// A place in the queue.
pub(super) type Place = (Bucket, i64, QueueId);

/// What a change replaced, so that it can be taken back.
enum Replaced {
    Item(QueueId, Option<StoredItem>),
    Claim(RunId, Option<ActiveRun>),
    Host(String, Option<Time>),
    Pause(Scope, Option<Pause>),
    Limit(Scope, Option<u32>),
}

/// The queue, the claims and the limited hosts.
#[derive(Default)]
pub(super) struct MemoryIndex {
    items: HashMap<QueueId, StoredItem>,
    of_key: BTreeMap<QueueKey, QueueId>,
    /// Every item is in one of these, by what it waits for.
    places: [BTreeSet<Place>; 4],
    priorities: BTreeSet<(i64, QueueId)>,
    added: BTreeSet<(Time, QueueId)>,
    in_bucket: BTreeMap<Bucket, u64>,
    in_campaign: BTreeMap<CampaignName, u64>,
    claims: HashMap<RunId, ActiveRun>,
    /// Which claim holds which item.
    holders: HashMap<QueueId, RunId>,
    hosts: BTreeMap<String, Time>,
    pauses: BTreeMap<Scope, Pause>,
    limits: BTreeMap<Scope, u32>,
    /// Claims by campaign and by host.
    running: BTreeMap<Scope, u64>,
    replaced: Vec<Replaced>,
}

/// What an item waits for.
#[derive(Clone, Copy)]
enum Waits {
    /// A worker.
    Open,
    /// A worker, but not before some time.
    Snoozed,
    /// Somebody who releases it.
    Parked,
    /// The end of its run.
    Held,
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, change: i64) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add_signed(change);
}

impl Waits {
    fn of(stored: &StoredItem, held: bool) -> Self {
        match &stored.state {
            _ if held => Self::Held,
            state if state.parked.is_some() => Self::Parked,
            state if state.not_before.is_some() => Self::Snoozed,
            _ => Self::Open,
        }
    }
}

impl MemoryIndex {
    /// Reads all of it.
    pub(super) fn load(txn: &Txn<'_>) -> Result<Self, Fault> {
        let mut hot = Self::default();
        for claim in txn.list::<ActiveRun>(&keys::all_active(), usize::MAX)? {
            hot.place_claim(claim.id.clone(), Some(claim));
        }
        txn.scan(&keys::items(), |_, value| -> Result<_, Fault> {
            let stored: StoredItem = decode(value)?;
            hot.place_item(stored.item.id, Some(stored));
            Ok(ControlFlow::Continue(()))
        })?;
        txn.scan(&keys::all_hosts(), |key, value| -> Result<_, Fault> {
            let Moment(until) = decode(value)?;
            let host = key.get(1..key.len() - 1).unwrap_or_default();
            hot.hosts
                .insert(String::from_utf8_lossy(host).into_owned(), until);
            Ok(ControlFlow::Continue(()))
        })?;
        let pauses: Vec<Pause> = txn.list(&keys::pauses(), usize::MAX)?;
        hot.pauses = pauses
            .into_iter()
            .map(|pause| (pause.scope.clone(), pause))
            .collect();
        let limits: Vec<ConcurrencyLimit> = txn.list(&keys::limits(), usize::MAX)?;
        hot.limits = limits
            .into_iter()
            .map(|limit| (limit.scope, limit.most))
            .collect();
        Ok(hot)
    }

    fn place_item(&mut self, id: QueueId, new: Option<StoredItem>) -> Option<StoredItem> {
        let held = self.holders.contains_key(&id);
        self.leave_place(id);
        let earlier = match &new {
            Some(stored) => self.items.insert(id, stored.clone()),
            None => self.items.remove(&id),
        };
        if let Some(earlier) = &earlier {
            let item = &earlier.item;
            self.priorities.remove(&(item.priority, id));
            self.added.remove(&(earlier.added, id));
            self.of_key.remove(&item.key);
            count(&mut self.in_bucket, item.bucket, -1);
            count(&mut self.in_campaign, item.key.campaign.clone(), -1);
        }
        if let Some(stored) = new {
            self.places[Waits::of(&stored, held) as usize].insert(stored.item.order());
            let item = stored.item;
            self.priorities.insert((item.priority, id));
            self.added.insert((stored.added, id));
            count(&mut self.in_bucket, item.bucket, 1);
            count(&mut self.in_campaign, item.key.campaign.clone(), 1);
            self.of_key.insert(item.key, id);
        }
        earlier
    }

    fn place_claim(&mut self, id: RunId, new: Option<ActiveRun>) -> Option<ActiveRun> {
        let earlier = self.claims.remove(&id);
        if let Some(earlier) = &earlier {
            self.holders.remove(&earlier.item.id);
            self.count_running(earlier, -1);
            self.move_item(earlier.item.id);
        }
        if let Some(claim) = new {
            let item = claim.item.id;
            self.holders.insert(item, id.clone());
            self.count_running(&claim, 1);
            self.claims.insert(id, claim);
            self.move_item(item);
        }
        earlier
    }

    /// Puts an item among those that wait for the same, as it is now.
    fn move_item(&mut self, id: QueueId) {
        self.leave_place(id);
        let Some(stored) = self.items.get(&id) else {
            return;
        };
        self.places[Waits::of(stored, self.holders.contains_key(&id)) as usize]
            .insert(stored.item.order());
    }

    fn leave_place(&mut self, id: QueueId) {
        let Some(place) = self.items.get(&id).map(|stored| stored.item.order()) else {
            return;
        };
        for places in &mut self.places {
            places.remove(&place);
        }
    }

    fn count_running(&mut self, run: &ActiveRun, change: i64) {
        count(
            &mut self.running,
            Scope::Campaign(run.key().campaign.clone()),
            change,
        );
        if let Some(host) = &run.host {
            count(&mut self.running, Scope::Host(host.clone()), change);
        }
    }

    /// Sets or takes away an item.
    pub(super) fn set_item(&mut self, id: QueueId, new: Option<StoredItem>) {
        let earlier = self.place_item(id, new);
        self.replaced.push(Replaced::Item(id, earlier));
    }

    /// Sets or takes away a claim.
    pub(super) fn set_claim(&mut self, id: &RunId, new: Option<ActiveRun>) {
        let earlier = self.place_claim(id.clone(), new);
        self.replaced.push(Replaced::Claim(id.clone(), earlier));
    }

    /// Limits a host.
    pub(super) fn set_host(&mut self, host: String, until: Time) {
        let earlier = self.hosts.insert(host.clone(), until);
        self.replaced.push(Replaced::Host(host, earlier));
    }

    /// Pauses something, or ends that; answers whether it was paused.
    pub(super) fn set_pause(&mut self, scope: &Scope, new: Option<Pause>) -> bool {
        let earlier = match new {
            Some(pause) => self.pauses.insert(scope.clone(), pause),
            None => self.pauses.remove(scope),
        };
        let was_paused = earlier.is_some();
        self.replaced.push(Replaced::Pause(scope.clone(), earlier));
        was_paused
    }

    /// Limits something, or ends that; answers whether it was limited.
    pub(super) fn set_limit(&mut self, scope: &Scope, new: Option<u32>) -> bool {
        let earlier = match new {
            Some(most) => self.limits.insert(scope.clone(), most),
            None => self.limits.remove(scope),
        };
        let was_limited = earlier.is_some();
        self.replaced.push(Replaced::Limit(scope.clone(), earlier));
        was_limited
    }

    /// How many changes were made and not yet settled.
    pub(super) fn mark(&self) -> usize {
        self.replaced.len()
    }

    /// Takes back what was changed since the mark.
    pub(super) fn undo_to(&mut self, mark: usize) {
        while self.replaced.len() > mark {
            match self.replaced.pop() {
                Some(Replaced::Item(id, earlier)) => drop(self.place_item(id, earlier)),
                Some(Replaced::Claim(id, earlier)) => drop(self.place_claim(id, earlier)),
                Some(Replaced::Host(host, Some(until))) => drop(self.hosts.insert(host, until)),
                Some(Replaced::Host(host, None)) => drop(self.hosts.remove(&host)),
                Some(Replaced::Pause(scope, Some(pause))) => drop(self.pauses.insert(scope, pause)),
                Some(Replaced::Pause(scope, None)) => drop(self.pauses.remove(&scope)),
                Some(Replaced::Limit(scope, Some(most))) => drop(self.limits.insert(scope, most)),
                Some(Replaced::Limit(scope, None)) => drop(self.limits.remove(&scope)),
                None => return,
            }
        }
    }

    /// What was changed is stored.
    pub(super) fn settle(&mut self) {
        self.replaced.clear();
    }

    pub(super) fn item(&self, id: QueueId) -> Option<&StoredItem> {
        self.items.get(&id)
    }

    pub(super) fn item_of(&self, key: &QueueKey) -> Option<&StoredItem> {
        self.items.get(self.of_key.get(key)?)
    }

    pub(super) fn is_held(&self, id: QueueId) -> bool {
        self.holders.contains_key(&id)
    }

    pub(super) fn smallest_priority(&self) -> Option<i64> {
        self.priorities.first().map(|(priority, _)| *priority)
    }

    pub(super) fn oldest(&self) -> Option<Time> {
        self.added.first().map(|(added, _)| *added)
    }

    fn waiting_for(&self, waits: Waits) -> &BTreeSet<Place> {
        &self.places[waits as usize]
    }

    fn at(&self, place: &Place) -> Option<&StoredItem> {
        self.items.get(&place.2)
    }

    /// The items that wait for a worker, in order: those that snoozed are woken where they stand.
    pub(super) fn open_items(&self, now: Time) -> impl Iterator<Item = &QueueItem> {
        let awake = move |place: &&Place| {
            self.at(place)
                .is_some_and(|stored| !stored.state.holds_back(now))
        };
        let mut open = self.waiting_for(Waits::Open).iter().peekable();
        let mut woken = self
            .waiting_for(Waits::Snoozed)
            .iter()
            .filter(awake)
            .peekable();
        let in_order = std::iter::from_fn(move || match (open.peek(), woken.peek()) {
            (Some(a), Some(b)) if b < a => woken.next(),
            (Some(_), _) => open.next(),
            (None, _) => woken.next(),
        });
        in_order
            .filter_map(|place| self.at(place))
            .map(|stored| &stored.item)
    }

    /// The items that nobody holds, in order.
    pub(super) fn free_items(&self) -> impl Iterator<Item = &QueueItem> {
        let free =
            [Waits::Open, Waits::Snoozed, Waits::Parked].map(|waits| self.waiting_for(waits));
        let mut places: Vec<&Place> = free.into_iter().flatten().collect();
        places.sort_unstable();
        places
            .into_iter()
            .filter_map(|place| self.at(place))
            .map(|stored| &stored.item)
    }

    /// The parked items after an id, by id.
    pub(super) fn parked(&self, after: Option<QueueId>, limit: usize) -> Vec<StoredItem> {
        let parked = self
            .waiting_for(Waits::Parked)
            .iter()
            .filter(|place| after.is_none_or(|after| place.2 > after));
        let mut parked: Vec<&StoredItem> = parked.filter_map(|place| self.at(place)).collect();
        parked.sort_unstable_by_key(|stored| stored.item.id);
        parked.into_iter().take(limit).cloned().collect()
    }

    /// All items before a place, in no order.
    pub(super) fn items_before(&self, place: Place) -> impl Iterator<Item = &QueueItem> {
        let places = self
            .places
            .iter()
            .flat_map(move |places| places.range(..place));
        places
            .filter_map(|place| self.at(place))
            .map(|stored| &stored.item)
    }

    /// The first items, held ones included.
    pub(super) fn first_items(&self, limit: usize) -> Vec<QueueItem> {
        let mut places: Vec<Place> = self
            .places
            .iter()
            .flat_map(|places| places.iter().take(limit))
            .copied()
            .collect();
        places.sort_unstable();
        places
            .iter()
            .take(limit)
            .filter_map(|place| self.at(place))
            .map(|stored| stored.item.clone())
            .collect()
    }

    /// The items of a codebase.
    pub(super) fn items_of(&self, codebase: &CodebaseName) -> impl Iterator<Item = &QueueItem> {
        // The shortest name that there can be comes before every other.
        let from = CampaignName::first().map(|campaign| QueueKey {
            codebase: codebase.clone(),
            campaign,
            change_set: None,
        });
        let keys = from
            .map(|from| self.of_key.range(from..))
            .into_iter()
            .flatten();
        keys.take_while(move |(key, _)| key.codebase == *codebase)
            .filter_map(|(_, id)| self.items.get(id))
            .map(|stored| &stored.item)
    }

    /// The first item of a pair.
    pub(super) fn first_of(&self, pair: &Pair) -> Option<&QueueItem> {
        self.items_of(&pair.codebase)
            .filter(|item| item.key.campaign == pair.campaign)
            .min_by_key(|item| item.order())
    }

    pub(super) fn in_buckets(&self) -> &BTreeMap<Bucket, u64> {
        &self.in_bucket
    }

    pub(super) fn in_campaigns(&self) -> &BTreeMap<CampaignName, u64> {
        &self.in_campaign
    }

    pub(super) fn length(&self) -> usize {
        self.items.len()
    }

    pub(super) fn claim(&self, id: &RunId) -> Option<&ActiveRun> {
        self.claims.get(id)
    }

    /// The claim, if the token is its own.
    pub(super) fn holder(&self, id: &RunId, token: &str) -> Option<&ActiveRun> {
        self.claims.get(id).filter(|run| run.token == token)
    }

    /// All claims, the oldest first.
    pub(super) fn claims(&self) -> Vec<ActiveRun> {
        let mut runs: Vec<ActiveRun> = self.claims.values().cloned().collect();
        runs.sort_by(|a, b| (a.start_time, &a.id).cmp(&(b.start_time, &b.id)));
        runs
    }

    pub(super) fn pauses(&self, now: Time) -> impl Iterator<Item = &Pause> {
        self.pauses.values().filter(move |pause| pause.holds(now))
    }

    pub(super) fn is_paused(&self, scope: &Scope, now: Time) -> bool {
        self.pauses.get(scope).is_some_and(|pause| pause.holds(now))
    }

    pub(super) fn limits(&self) -> impl Iterator<Item = ConcurrencyLimit> {
        self.limits.iter().map(|(scope, most)| ConcurrencyLimit {
            scope: scope.clone(),
            most: *most,
        })
    }

    /// What nothing more may run of: it is paused, or at its limit.
    pub(super) fn closed(&self, now: Time) -> BTreeSet<&Scope> {
        let full = self.limits.iter().filter(|(scope, most)| {
            self.running
                .get(scope)
                .is_some_and(|running| *running >= u64::from(**most))
                || **most == 0
        });
        self.pauses(now)
            .map(|pause| &pause.scope)
            .chain(full.map(|(scope, _)| scope))
            .collect()
    }

    pub(super) fn host(&self, host: &str) -> Option<Time> {
        self.hosts.get(host).copied()
    }

    /// The hosts that are limited now, by name.
    pub(super) fn backed_off_hosts(&self, now: Time) -> Vec<HostBackoff> {
        let limited = self.hosts.iter().filter(|(_, until)| **until > now);
        limited
            .map(|(host, until)| HostBackoff {
                host: host.clone(),
                until: *until,
            })
            .collect()
    }
}
