//! What runs resumed from, on the embedded stores.

use super::{
    keys,
    records::{StoredCodebase, StoredPast},
    store::Embedded,
    txn::{Txn, decode},
};
use crate::{
    domain::{
        name::{CodebaseName, RunId},
        run::Run,
        schedule::Pair,
    },
    ports::{
        Fault, RunHistory,
        run_history::{RunLink, RunLinks},
    },
};
use async_trait::async_trait;
use std::{
    collections::HashSet,
    ops::{Bound, ControlFlow},
};

fn link_of(run: Run) -> RunLink {
    RunLink {
        id: run.id,
        codebase: run.codebase,
        campaign: run.campaign,
        code: run.code,
        start_time: run.start_time,
        resume_from: run.resume_from,
    }
}

fn links_after(txn: &Txn<'_>, id: &RunId, limit: usize) -> Result<RunLinks, Fault> {
    let mut links = vec![];
    let from = Bound::Excluded(keys::run(id).0);
    txn.scan_from(&keys::all_runs(), from, |_, value| -> Result<_, Fault> {
        if links.len() >= limit {
            return Ok(ControlFlow::Break(()));
        }
        links.push(link_of(decode(value)?));
        Ok(ControlFlow::Continue(()))
    })?;
    let last = links.last().map(|link: &RunLink| link.id.clone());
    let next = last.filter(|_| links.len() >= limit);
    Ok(RunLinks { links, next })
}

fn chain(txn: &Txn<'_>, id: &RunId, limit: usize) -> Result<Vec<RunLink>, Fault> {
    let link = |id: &RunId| {
        let run: Option<Run> = txn.get(&keys::run(id))?;
        Ok::<_, Fault>(run.map(link_of))
    };
    let (mut chain, mut seen) = (vec![], HashSet::from([id.clone()]));
    let mut next = link(id)?.and_then(|run| run.resume_from);
    while let Some(from) = next.take()
        && chain.len() < limit
        && seen.insert(from.clone())
        && let Some(run) = link(&from)?
    {
        next.clone_from(&run.resume_from);
        chain.push(run);
    }
    Ok(chain)
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
        mut cursor: Option<RunId>,
        limit: usize,
    ) -> Result<Vec<RunId>, Fault> {
        let (past, id) = (keys::past_of_pair(pair), id.clone());
        self.read("list the runs that resumed from a run", move |txn, _| {
            let mut found = vec![];
            txn.scan(&past, |_, value| -> Result<_, Fault> {
                let past: StoredPast = decode(value)?;
                if past.brief.resume_from.as_ref() != Some(&id) {
                    return Ok(ControlFlow::Continue(()));
                }
                match &cursor {
                    None => found.push(past.brief.id),
                    Some(last) if *last == past.brief.id => cursor = None,
                    Some(_) => {}
                }
                Ok(match found.len() >= limit {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                })
            })?;
            Ok(found)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.run_history.chain", level = "debug", skip_all, fields(run.id = %id)
    )]
    async fn chain(&self, id: &RunId, limit: usize) -> Result<Vec<RunLink>, Fault> {
        let id = id.clone();
        self.read("follow what runs resumed from", move |txn, _| {
            chain(txn, &id, limit)
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
