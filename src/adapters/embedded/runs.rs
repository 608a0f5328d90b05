//! Stored runs on the embedded stores.

use super::{
    keys, outbox,
    records::StoredPast,
    store::Embedded,
    txn::{Txn, decode},
};
use crate::{
    domain::{
        name::{CodebaseName, RunId},
        publish::PublishStatus,
        run::{ResultCode, Run},
        schedule::Pair,
        time::Time,
    },
    ports::{
        Fault, RunStore, RunStoreError,
        run_store::{FinishedCounts, MAX_LIST_SIZE},
    },
};
use async_trait::async_trait;
use std::{collections::HashSet, ops::ControlFlow};

/// A list of runs that ends after so many bytes.
#[derive(Default)]
struct BoundedRuns {
    runs: Vec<Run>,
    size: usize,
}

impl BoundedRuns {
    fn is_full(&self) -> bool {
        self.size >= MAX_LIST_SIZE
    }

    /// Adds the run of an id, unless it is missing.
    fn push(&mut self, txn: &Txn<'_>, id: &RunId) -> Result<(), Fault> {
        if let Some(bytes) = txn.get_bytes(&keys::run(id))? {
            self.size += bytes.len();
            self.runs.push(decode(&bytes)?);
        }
        Ok(())
    }
}

fn runs_by_id(txn: &Txn<'_>, ids: &[RunId]) -> Result<Vec<Run>, Fault> {
    let mut list = BoundedRuns::default();
    for id in ids {
        if list.is_full() {
            break;
        }
        list.push(txn, id)?;
    }
    Ok(list.runs)
}

fn latest(txn: &Txn<'_>, limit: usize) -> Result<Vec<Run>, Fault> {
    let (mut seen, mut list) = (HashSet::new(), BoundedRuns::default());
    txn.scan(&keys::all_stored(), |_, value| -> Result<_, Fault> {
        if list.runs.len() >= limit || list.is_full() {
            return Ok(ControlFlow::Break(()));
        }
        let id: RunId = decode(value)?;
        // A run whose result came late has two entries, of which the newer counts.
        if seen.insert(id.clone()) {
            list.push(txn, &id)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(list.runs)
}

fn run_of_revision(txn: &Txn<'_>, pair: &Pair, revision: &str) -> Result<Option<Run>, Fault> {
    let mut found = None;
    txn.scan(&keys::past_of_pair(pair), |_, value| -> Result<_, Fault> {
        let past: StoredPast = decode(value)?;
        if past.brief.code.is_success() && past.revision.as_deref() == Some(revision) {
            found = Some(past.brief.id);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    found.map_or(Ok(None), |id| txn.get(&keys::run(&id)))
}

fn finished_since(txn: &Txn<'_>, since: Time) -> Result<FinishedCounts, Fault> {
    let first = since.timestamp().div_euclid(60);
    let mut counts = FinishedCounts::new();
    // Reading all of it is fine, since counts older than a day are deleted.
    txn.scan(&keys::all_finished(), |key, value| -> Result<_, Fault> {
        if keys::first_number(key).is_some_and(|minute| minute >= first) {
            let code =
                String::from_utf8_lossy(key.get(9..key.len() - 1).unwrap_or_default()).into_owned();
            *counts.entry(ResultCode::new(code)).or_default() += decode::<u64>(value)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(counts)
}

#[async_trait]
impl RunStore for Embedded {
    #[tracing::instrument(
        name = "embedded.run_store.run", level = "debug", skip_all,
        fields(run.id = %id)
    )]
    async fn run(&self, id: &RunId) -> Result<Option<Run>, RunStoreError> {
        let key = keys::run(id);
        self.read_durable("look up a run", move |txn, _| Ok(txn.get(&key)?))
            .await
    }

    #[tracing::instrument(name = "embedded.run_store.runs_by_id", level = "debug", skip_all)]
    async fn runs_by_id(&self, ids: &[RunId]) -> Result<Vec<Run>, RunStoreError> {
        let ids = ids.to_vec();
        Ok(self
            .read_durable("look up runs", move |txn, _| runs_by_id(txn, &ids))
            .await?)
    }

    #[tracing::instrument(
        name = "embedded.run_store.latest",
        level = "debug",
        skip_all,
        fields(limit)
    )]
    async fn latest(&self, limit: usize) -> Result<Vec<Run>, RunStoreError> {
        self.read("list the runs", move |txn, _| Ok(latest(txn, limit)?))
            .await
    }

    #[tracing::instrument(
        name = "embedded.run_store.set_publish_status", level = "debug", skip_all,
        fields(run.id = %id)
    )]
    async fn set_publish_status(
        &self,
        id: &RunId,
        status: PublishStatus,
    ) -> Result<Option<Run>, RunStoreError> {
        let key = keys::run(id);
        self.write("set a publish status", move |txn, _| {
            let Some(mut run) = txn.get::<Run>(&key)? else {
                return Ok(None);
            };
            run.publish_status = status;
            txn.put(key, &run)?;
            outbox::add(txn, &run.id, Some(status))?;
            Ok(Some(run))
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.run_store.run_of_revision", level = "debug", skip_all,
        fields(codebase.name = %pair.codebase, campaign.name = %pair.campaign)
    )]
    async fn run_of_revision(
        &self,
        pair: &Pair,
        revision: &str,
    ) -> Result<Option<Run>, RunStoreError> {
        let (pair, revision) = (pair.clone(), revision.to_owned());
        self.read("look up the run of a revision", move |txn, _| {
            Ok(run_of_revision(txn, &pair, &revision)?)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.run_store.last_build_version", level = "debug", skip_all,
        fields(codebase.name = %codebase)
    )]
    async fn last_build_version(
        &self,
        codebase: &CodebaseName,
        distribution: &str,
    ) -> Result<Option<String>, RunStoreError> {
        let key = keys::highest_version(codebase, distribution);
        self.read("look up the last version built", move |txn, _| {
            Ok(txn.get(&key)?)
        })
        .await
    }

    #[tracing::instrument(name = "embedded.run_store.finished_since", level = "debug", skip_all)]
    async fn finished_since(&self, since: Time) -> Result<FinishedCounts, RunStoreError> {
        self.read("count the finished runs", move |txn, _| {
            Ok(finished_since(txn, since)?)
        })
        .await
    }

    #[tracing::instrument(name = "embedded.run_store.health_check", level = "debug", skip_all)]
    async fn health_check(&self) -> Result<(), RunStoreError> {
        // A change rather than a read, so that the writer and the disk are checked, too.
        self.write("check the store", |txn, _| {
            txn.put(keys::meta("checked"), &true)?;
            Ok(())
        })
        .await
    }
}
