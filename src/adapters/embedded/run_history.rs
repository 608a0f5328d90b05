//! What runs resumed from, on the embedded stores.

use super::{
    keys,
    records::{StoredCodebase, StoredPast},
    store::Embedded,
    txn::{Txn, decode},
};
use crate::{
    domain::{
        name::{CampaignName, CodebaseName, RunId},
        run::ResultCode,
        schedule::Pair,
        time::{self, Time},
    },
    ports::{
        Fault, RunHistory,
        run_history::{RunLink, RunLinks},
    },
};
use async_trait::async_trait;
use serde::Deserialize;
use std::ops::{Bound, ControlFlow};

/// A stored run, as far as matters here: results may be large.
#[derive(Deserialize)]
struct StoredLink {
    id: RunId,
    codebase: CodebaseName,
    campaign: CampaignName,
    code: ResultCode,
    #[serde(with = "time::as_iso")]
    start_time: Time,
    resume_from: Option<RunId>,
}

impl From<StoredLink> for RunLink {
    fn from(stored: StoredLink) -> Self {
        Self {
            id: stored.id,
            codebase: stored.codebase,
            campaign: stored.campaign,
            code: stored.code,
            start_time: stored.start_time,
            resume_from: stored.resume_from,
        }
    }
}

fn links_after(txn: &Txn<'_>, id: &RunId, limit: usize) -> Result<RunLinks, Fault> {
    let mut links = vec![];
    let from = Bound::Excluded(keys::run(id).0);
    txn.scan_from(&keys::all_runs(), from, |_, value| -> Result<_, Fault> {
        if links.len() >= limit {
            return Ok(ControlFlow::Break(()));
        }
        links.push(decode::<StoredLink>(value)?.into());
        Ok(ControlFlow::Continue(()))
    })?;
    let last = links.last().map(|link: &RunLink| link.id.clone());
    let next = last.filter(|_| links.len() >= limit);
    Ok(RunLinks { links, next })
}

/// Looks at all codebases: they have no index by branch, and nobody asks often.
fn codebase_at(txn: &Txn<'_>, branch_url: &str) -> Result<Option<CodebaseName>, Fault> {
    let mut found = None;
    txn.scan(&keys::codebases(), |_, value| -> Result<_, Fault> {
        let StoredCodebase { codebase, .. } = decode(value)?;
        if codebase.name.is_some() && codebase.branch_url.as_deref() == Some(branch_url) {
            found = codebase.name;
            return Ok(ControlFlow::Break(()));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

#[async_trait]
impl RunHistory for Embedded {
    #[tracing::instrument(
        name = "embedded.run_history.resumed_from", level = "debug", skip_all, fields(run.id = %id)
    )]
    async fn resumed_from(
        &self,
        pair: &Pair,
        id: &RunId,
        after: Option<RunLink>,
        limit: usize,
    ) -> Result<Vec<RunId>, Fault> {
        let (past, id) = (keys::past_of_pair(pair), id.clone());
        let from = match after {
            Some(after) => Bound::Excluded(keys::past(pair, after.start_time, &after.id).0),
            None => Bound::Included(past.0.clone()),
        };
        self.read("list the runs that resumed from a run", move |txn, _| {
            let mut found = vec![];
            txn.scan_from(&past, from, |_, value| -> Result<_, Fault> {
                if found.len() >= limit {
                    return Ok(ControlFlow::Break(()));
                }
                let past: StoredPast = decode(value)?;
                if past.brief.resume_from.as_ref() == Some(&id) {
                    found.push(past.brief.id);
                }
                Ok(ControlFlow::Continue(()))
            })?;
            Ok(found)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.run_history.link", level = "debug", skip_all, fields(run.id = %id)
    )]
    async fn link(&self, id: &RunId) -> Result<Option<RunLink>, Fault> {
        let key = keys::run(id);
        self.read("look up what a run resumed from", move |txn, _| {
            Ok(txn.get::<StoredLink>(&key)?.map(RunLink::from))
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.run_history.links_after", level = "debug", skip_all, fields(run.id = %id)
    )]
    async fn links_after(&self, id: &RunId, limit: usize) -> Result<RunLinks, Fault> {
        let id = id.clone();
        self.read("list what runs resumed from", move |txn, _| {
            links_after(txn, &id, limit)
        })
        .await
    }

    #[tracing::instrument(name = "embedded.run_history.codebase_at", level = "debug", skip_all)]
    async fn codebase_at(&self, branch_url: &str) -> Result<Option<CodebaseName>, Fault> {
        let branch_url = branch_url.to_owned();
        self.read("look up a codebase by its branch", move |txn, _| {
            codebase_at(txn, &branch_url)
        })
        .await
    }
}
