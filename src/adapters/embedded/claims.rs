//! Claims and limited hosts on the embedded stores.

use super::{
    Embedded, keys, queue,
    records::Moment,
    txn::{Txn, decode},
};
use crate::{
    domain::{active_run::ActiveRun, name::RunId, time::Time},
    ports::{
        Claims, ClaimsError, Fault,
        claims::{ClaimDetails, HostLimit},
    },
};
use async_trait::async_trait;
use std::ops::ControlFlow;

/// The active run, if the token is its own.
pub(super) fn holder(txn: &Txn<'_>, id: &RunId, token: &str) -> Result<Option<ActiveRun>, Fault> {
    Ok(txn.get::<ActiveRun>(&keys::active(id))?.filter(|run| run.token == token))
}

fn held(txn: &Txn<'_>, id: &RunId, token: &str) -> Result<ActiveRun, ClaimsError> {
    holder(txn, id, token)?.ok_or_else(|| ClaimsError::ClaimLost(id.clone()))
}

pub(super) fn limited_hosts(txn: &Txn<'_>, now: Time) -> Result<Vec<HostLimit>, Fault> {
    let mut limits = vec![];
    txn.scan(&keys::all_hosts(), |key, value| -> Result<_, Fault> {
        let Moment(until) = decode(value)?;
        let host = key.get(1..key.len() - 1).unwrap_or_default();
        if until > now {
            limits.push(HostLimit { host: String::from_utf8_lossy(host).into_owned(), until });
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(limits)
}

#[async_trait]
impl Claims for Embedded {
    async fn get(&self, id: &RunId) -> Result<Option<ActiveRun>, ClaimsError> {
        let key = keys::active(id);
        self.read("look up an active run", move |txn| Ok(txn.get(&key)?)).await
    }

    async fn list(&self) -> Result<Vec<ActiveRun>, ClaimsError> {
        self.read("list the active runs", |txn| {
            let mut runs: Vec<ActiveRun> = txn.list(&keys::all_active(), usize::MAX)?;
            runs.sort_by(|a, b| (a.start_time, &a.id).cmp(&(b.start_time, &b.id)));
            Ok(runs)
        })
        .await
    }

    async fn amend(&self, id: &RunId, token: &str, details: ClaimDetails) -> Result<(), ClaimsError> {
        let (id, token) = (id.clone(), token.to_owned());
        self.write("add to an active run", move |txn| {
            let run = held(txn, &id, &token)?;
            let run = ActiveRun { vcs: details.vcs, resume_from: details.resume_from, ..run };
            Ok(txn.put(keys::active(&id), &run)?)
        })
        .await
    }

    async fn renew(&self, id: &RunId, token: &str, now: Time) -> Result<(), ClaimsError> {
        let (id, token) = (id.clone(), token.to_owned());
        self.write("renew a claim", move |txn| {
            let mut run = held(txn, &id, &token)?;
            run.keepalive = run.keepalive.max(now);
            Ok(txn.put(keys::active(&id), &run)?)
        })
        .await
    }

    async fn release(&self, id: &RunId, token: &str, now: Time) -> Result<(), ClaimsError> {
        let (id, token) = (id.clone(), token.to_owned());
        self.write("release a claim", move |txn| {
            let run = held(txn, &id, &token)?;
            txn.delete(keys::active(&id));
            Ok(queue::free_item(txn, run.item.id, now)?)
        })
        .await
    }

    async fn limit_host(&self, limit: HostLimit) -> Result<(), ClaimsError> {
        self.write("limit a host", move |txn| {
            let key = keys::host(&limit.host);
            let earlier = txn.get::<Moment>(&key)?;
            let until = earlier.map_or(limit.until, |Moment(earlier)| earlier.max(limit.until));
            Ok(txn.put(key, &Moment(until))?)
        })
        .await
    }

    async fn limited_hosts(&self, now: Time) -> Result<Vec<HostLimit>, ClaimsError> {
        self.read("list the limited hosts", move |txn| Ok(limited_hosts(txn, now)?)).await
    }
}
