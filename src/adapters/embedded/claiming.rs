//! Which item a worker gets, and the claim on it.

use super::{codebases, keys, memory_index::MemoryIndex, records::Moment, txn::Txn};
use crate::{
    domain::{active_run::ActiveRun, pause::Scope, queue::QueueItem, time::Time},
    ports::{
        Fault,
        active_runs::{ClaimRequest, Claimed},
        queue_store::{ClaimFilter, NextItem},
    },
};
use std::collections::BTreeSet;

/// Persists an active run; returns it.
pub(super) fn persist(
    txn: &mut Txn<'_>,
    index: &mut MemoryIndex,
    run: ActiveRun,
) -> Result<ActiveRun, Fault> {
    txn.put(keys::active(&run.id), &run)?;
    index.set_active_run(&run.id, Some(run.clone()));
    Ok(run)
}

/// What must not be claimed right now.
struct Blocked<'a> {
    scopes: BTreeSet<&'a Scope>,
    /// Whether one of the scopes is other than a host, so that items need to be compared with them.
    has_item_scopes: bool,
    /// Hosts that the worker avoids, that are backing off, paused or at their limit.
    hosts: Vec<String>,
}

impl<'a> Blocked<'a> {
    fn new(index: &'a MemoryIndex, filter: &ClaimFilter, now: Time) -> Self {
        let scopes = index.blocked_scopes(now);
        let mut hosts = filter.avoid_hosts.clone();
        let backed_off = index.backed_off_hosts(now);
        hosts.extend(backed_off.into_iter().map(|backoff| backoff.host));
        hosts.extend(scopes.iter().filter_map(|scope| match scope {
            Scope::Host(host) => Some(host.clone()),
            _ => None,
        }));
        Self {
            has_item_scopes: scopes.iter().any(|scope| !matches!(scope, Scope::Host(_))),
            scopes,
            hosts,
        }
    }

    fn blocks(&self, scope: Scope) -> bool {
        !self.scopes.is_empty() && self.scopes.contains(&scope)
    }

    fn blocks_item(&self, item: &QueueItem) -> bool {
        // Building the scopes of each item takes longer than all else, and mostly nothing is
        // blocked.
        self.has_item_scopes
            && (self.blocks(Scope::Campaign(item.key.campaign.clone()))
                || self.blocks(Scope::Codebase(item.key.codebase.clone()))
                || self.blocks(Scope::Bucket(item.bucket)))
    }
}

/// Returns the items of the filter's codebase, or of all, that may be claimed, in queue order.
fn claimable<'a>(
    index: &'a MemoryIndex,
    filter: &ClaimFilter,
    now: Time,
) -> impl Iterator<Item = &'a QueueItem> {
    let mut of_codebase: Vec<&QueueItem> = vec![];
    if let Some(codebase) = &filter.codebase {
        let is_claimable = |item: &&QueueItem| {
            !index.is_claimed(item.id)
                && index
                    .item(item.id)
                    .is_some_and(|stored| !stored.state.holds_back(now))
        };
        of_codebase.extend(index.items_of_codebase(codebase).filter(is_claimable));
        of_codebase.sort_unstable_by_key(|item| item.order());
    }
    let of_all = filter
        .codebase
        .is_none()
        .then(|| index.claimable_items(now))
        .into_iter()
        .flatten();
    of_all.chain(of_codebase)
}

/// Returns the first item that may be claimed and that the filter matches, with its codebase.
pub(super) fn next(
    txn: &Txn<'_>,
    index: &MemoryIndex,
    filter: &ClaimFilter,
    now: Time,
) -> Result<Option<NextItem>, Fault> {
    let blocked = Blocked::new(index, filter, now);
    if blocked.blocks(Scope::All) {
        return Ok(None);
    }
    let matches = |item: &&QueueItem| {
        filter
            .campaign
            .as_ref()
            .is_none_or(|campaign| *campaign == item.key.campaign)
            && !filter.except.contains(&item.key)
            && !blocked.blocks_item(item)
    };
    for item in claimable(index, filter, now).filter(matches) {
        if index.passed_hosts.is_on(item.id, &blocked.hosts) {
            continue;
        }
        let codebase = codebases::get(txn, &item.key.codebase)?;
        let codebase = codebase.ok_or_else(|| {
            Fault::backend(
                "look for the next item",
                format!("item {} is of no codebase", item.id),
            )
        })?;
        match codebase.host() {
            Some(host) if blocked.hosts.contains(&host) => {
                index.passed_hosts.remember(item.id, &host);
            }
            _ => {
                return Ok(Some(NextItem {
                    item: item.clone(),
                    codebase,
                }));
            }
        }
    }
    Ok(None)
}

/// Claims the next item for a worker.
pub(super) fn claim(
    txn: &mut Txn<'_>,
    index: &mut MemoryIndex,
    request: ClaimRequest,
) -> Result<Option<Claimed>, Fault> {
    let names = [
        request.claimant.worker.clone(),
        request.claimant.counted_name(),
    ];
    let is_paused = |name: String| index.is_paused(&Scope::Worker(name), request.now);
    if names.into_iter().flatten().any(is_paused) {
        return Ok(None);
    }
    index.wake(request.now);
    let Some(NextItem { item, codebase }) = next(txn, index, &request.filter, request.now)? else {
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
    let run = persist(txn, index, run)?;
    Ok(Some(Claimed { run, codebase }))
}
