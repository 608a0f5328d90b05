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
        queue::{Bucket, QueueId, QueueItem, QueueKey},
        schedule::Pair,
        time::Time,
    },
    ports::{Fault, claims::HostLimit},
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
}

/// The queue, the claims and the limited hosts.
#[derive(Default)]
pub(super) struct Hot {
    items: HashMap<QueueId, StoredItem>,
    of_key: BTreeMap<QueueKey, QueueId>,
    open: BTreeSet<Place>,
    held: BTreeSet<Place>,
    priorities: BTreeSet<(i64, QueueId)>,
    added: BTreeSet<(Time, QueueId)>,
    in_bucket: BTreeMap<Bucket, u64>,
    in_campaign: BTreeMap<CampaignName, u64>,
    claims: HashMap<RunId, ActiveRun>,
    /// Which claim holds which item.
    holders: HashMap<QueueId, RunId>,
    hosts: BTreeMap<String, Time>,
    replaced: Vec<Replaced>,
}

fn count<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K, change: i64) {
    let count = counts.entry(key).or_default();
    *count = count.saturating_add_signed(change);
}

impl Hot {
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
            hot.hosts.insert(String::from_utf8_lossy(host).into_owned(), until);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(hot)
    }

    fn place_item(&mut self, id: QueueId, new: Option<StoredItem>) -> Option<StoredItem> {
        let held = self.holders.contains_key(&id);
        let earlier = match &new {
            Some(stored) => self.items.insert(id, stored.clone()),
            None => self.items.remove(&id),
        };
        if let Some(earlier) = &earlier {
            let item = &earlier.item;
            self.open.remove(&item.order());
            self.held.remove(&item.order());
            self.priorities.remove(&(item.priority, id));
            self.added.remove(&(earlier.added, id));
            self.of_key.remove(&item.key);
            count(&mut self.in_bucket, item.bucket, -1);
            count(&mut self.in_campaign, item.key.campaign.clone(), -1);
        }
        if let Some(stored) = new {
            let item = stored.item;
            let order = if held { &mut self.held } else { &mut self.open };
            order.insert(item.order());
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
            self.move_item(earlier.item.id);
        }
        if let Some(claim) = new {
            let item = claim.item.id;
            self.holders.insert(item, id.clone());
            self.claims.insert(id, claim);
            self.move_item(item);
        }
        earlier
    }

    /// Puts an item among the held or the open ones, as it is now.
    fn move_item(&mut self, id: QueueId) {
        let Some(place) = self.items.get(&id).map(|stored| stored.item.order()) else { return };
        let (from, to) = if self.holders.contains_key(&id) { (&mut self.open, &mut self.held) } else { (&mut self.held, &mut self.open) };
        from.remove(&place);
        to.insert(place);
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

    /// The free items, in order.
    pub(super) fn open_items(&self) -> impl Iterator<Item = &QueueItem> {
        self.in_order(&self.open)
    }

    fn in_order<'a>(&'a self, places: &'a BTreeSet<Place>) -> impl Iterator<Item = &'a QueueItem> {
        places.iter().filter_map(|(_, _, id)| self.items.get(id)).map(|stored| &stored.item)
    }

    /// All items before a place, in no order.
    pub(super) fn items_before(&self, place: Place) -> impl Iterator<Item = &QueueItem> {
        let places = self.open.range(..place).chain(self.held.range(..place));
        places.filter_map(|(_, _, id)| self.items.get(id)).map(|stored| &stored.item)
    }

    /// The first items, held ones included.
    pub(super) fn first_items(&self, limit: usize) -> Vec<QueueItem> {
        let mut places: Vec<Place> = self.open.iter().take(limit).chain(self.held.iter().take(limit)).copied().collect();
        places.sort_unstable();
        places.iter().take(limit).filter_map(|(_, _, id)| self.items.get(id)).map(|stored| stored.item.clone()).collect()
    }

    /// The items of a codebase.
    pub(super) fn items_of(&self, codebase: &CodebaseName) -> impl Iterator<Item = &QueueItem> {
        // The shortest name that there can be comes before every other.
        let from = CampaignName::first().map(|campaign| QueueKey { codebase: codebase.clone(), campaign, change_set: None });
        let keys = from.map(|from| self.of_key.range(from..)).into_iter().flatten();
        keys.take_while(move |(key, _)| key.codebase == *codebase).filter_map(|(_, id)| self.items.get(id)).map(|stored| &stored.item)
    }

    /// The first item of a pair.
    pub(super) fn first_of(&self, pair: &Pair) -> Option<&QueueItem> {
        self.items_of(&pair.codebase).filter(|item| item.key.campaign == pair.campaign).min_by_key(|item| item.order())
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

    pub(super) fn host(&self, host: &str) -> Option<Time> {
        self.hosts.get(host).copied()
    }

    /// The hosts that are limited now, by name.
    pub(super) fn limited_hosts(&self, now: Time) -> Vec<HostLimit> {
        let limited = self.hosts.iter().filter(|(_, until)| **until > now);
        limited.map(|(host, until)| HostLimit { host: host.clone(), until: *until }).collect()
    }
}
