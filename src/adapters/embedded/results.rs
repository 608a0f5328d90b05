//! Runs on the embedded stores.

use super::{
    Embedded,
    hot::Hot,
    keys, queue,
    records::{ChangeSet, Durations, Moment, StoredFollowUp, StoredNews, StoredPast},
    txn::{Txn, decode},
};
use crate::{
    domain::{
        changes,
        name::{CodebaseName, RunId},
        publish::PublishStatus,
        run::{ResultCode, Run, RunBrief, Target},
        schedule::Pair,
        time::Time,
    },
    ports::{
        Fault, ResultStore, ResultStoreError,
        result_store::{FinishedCounts, NewRun, Recorded},
    },
};
use async_trait::async_trait;
use std::ops::ControlFlow;

/// Minutes of finished runs that are kept, for the figures.
const MINUTES_KEPT: i64 = 25 * 60;

/// Makes a change set unless it is there. One that a run has for itself follows from the run, and is not kept.
pub(super) fn make_change_set(txn: &mut Txn<'_>, id: &str, campaign: &crate::domain::name::CampaignName) -> Result<(), Fault> {
    let key = keys::change_set(id);
    if txn.get_bytes(&key)?.is_none() {
        txn.put(key, &ChangeSet { campaign: campaign.clone(), state: "created".into() })?;
    }
    Ok(())
}

fn pair_of(run: &Run) -> Pair {
    run.key().pair()
}

fn store_past(txn: &mut Txn<'_>, run: &Run) -> Result<(), Fault> {
    let brief = RunBrief {
        id: run.id.clone(),
        start_time: run.start_time,
        code: run.code.clone(),
        transient: run.is_transient(),
        resume_from: run.resume_from.clone(),
    };
    let past = StoredPast { brief, past: run.past(), revision: run.revision.clone() };
    txn.put(keys::past(&pair_of(run), run.start_time, &run.id), &past)?;
    if run.is_transient() {
        return Ok(());
    }
    let key = keys::durations_of_campaign(&run.campaign);
    let durations: Durations = txn.get(&key)?.unwrap_or_default();
    txn.put(key, &durations.with(run.duration()))
}

fn store_version(txn: &mut Txn<'_>, run: &Run) -> Result<(), Fault> {
    let Some(Target::Debian(package)) = &run.target else { return Ok(()) };
    let key = keys::highest_version(&run.codebase, &package.distribution);
    let earlier: Option<String> = txn.get(&key)?;
    let versions = earlier.as_deref().into_iter().chain([package.version.as_str()]);
    match changes::highest(versions) {
        Some(highest) => txn.put(key, &highest),
        None => Ok(()),
    }
}

fn count_finished(txn: &mut Txn<'_>, run: &Run, now: Time) -> Result<(), Fault> {
    let minute = now.timestamp().div_euclid(60);
    let first_of_its_minute = txn.add(keys::finished(minute, run.code.as_str()), 1)? == 1;
    let oldest = if first_of_its_minute { txn.first(&keys::all_finished())? } else { None };
    if let Some((key, _)) = oldest.filter(|(key, _)| keys::first_number(key).is_some_and(|oldest| oldest < minute - MINUTES_KEPT)) {
        txn.delete(keys::Key(key));
    }
    Ok(())
}

fn store(txn: &mut Txn<'_>, run: &Run, now: Time) -> Result<(), Fault> {
    if let Some(change_set) = run.key().change_set {
        make_change_set(txn, &change_set, &run.campaign)?;
    }
    txn.put(keys::run(&run.id), run)?;
    let sequence = txn.add(keys::meta("last_run_sequence"), 1)?;
    txn.put(keys::stored(now, sequence), &run.id)?;
    store_past(txn, run)?;
    store_version(txn, run)?;
    count_finished(txn, run, now)?;
    let follow_up = StoredFollowUp { run_id: run.id.clone(), key: run.key(), context: run.context.clone() };
    txn.put(keys::follow_up(sequence), &follow_up)?;
    note_news(txn, &run.id, None)
}

fn note_news(txn: &mut Txn<'_>, run: &RunId, publish_status: Option<PublishStatus>) -> Result<(), Fault> {
    let id = txn.add(keys::meta("last_news"), 1)?;
    txn.put(keys::news(id), &StoredNews { run_id: run.clone(), publish_status })
}

fn record(txn: &mut Txn<'_>, hot: &mut Hot, new: NewRun) -> Result<Recorded, ResultStoreError> {
    let NewRun { run, token, now } = new;
    if let Some(known) = txn.get::<Run>(&keys::run(&run.id))? {
        return Ok(Recorded::Known(Box::new(known)));
    }
    let Some(item) = hot.holder(&run.id, &token).map(|active| active.item.id) else { return Err(ResultStoreError::ClaimLost(run.id)) };
    if let Some(worker) = &run.worker {
        if txn.get_bytes(&keys::worker(worker))?.is_none() {
            return Err(ResultStoreError::UnknownWorker(worker.clone()));
        }
        txn.put(keys::worker_seen(worker), &Moment(now))?;
    }
    txn.delete(keys::active(&run.id));
    hot.set_claim(&run.id, None);
    queue::end_item(txn, hot, item, now)?;
    store(txn, &run, now)?;
    Ok(Recorded::Stored)
}

fn latest(txn: &Txn<'_>, limit: usize) -> Result<Vec<Run>, Fault> {
    let ids: Vec<RunId> = txn.list(&keys::all_stored(), limit)?;
    let runs = ids.iter().map(|id| txn.get(&keys::run(id)));
    Ok(runs.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
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
    // The table has at most a day of minutes, so all of it is read.
    txn.scan(&keys::all_finished(), |key, value| -> Result<_, Fault> {
        if keys::first_number(key).is_some_and(|minute| minute >= first) {
            let code = String::from_utf8_lossy(key.get(9..key.len() - 1).unwrap_or_default()).into_owned();
            *counts.entry(ResultCode::new(code)).or_default() += decode::<u64>(value)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(counts)
}

#[async_trait]
impl ResultStore for Embedded {
    async fn record(&self, new: NewRun) -> Result<Recorded, ResultStoreError> {
        self.write("store a run", move |txn, hot| record(txn, hot, new)).await
    }

    async fn run(&self, id: &RunId) -> Result<Option<Run>, ResultStoreError> {
        let key = keys::run(id);
        self.read("look up a run", move |txn, _| Ok(txn.get(&key)?)).await
    }

    async fn latest(&self, limit: usize) -> Result<Vec<Run>, ResultStoreError> {
        self.read("list the runs", move |txn, _| Ok(latest(txn, limit)?)).await
    }

    async fn set_publish_status(&self, id: &RunId, status: PublishStatus) -> Result<Option<Run>, ResultStoreError> {
        let key = keys::run(id);
        self.write("set a publish status", move |txn, _| {
            let Some(mut run) = txn.get::<Run>(&key)? else { return Ok(None) };
            run.publish_status = status;
            txn.put(key, &run)?;
            note_news(txn, &run.id, Some(status))?;
            Ok(Some(run))
        })
        .await
    }

    async fn run_of_revision(&self, pair: &Pair, revision: &str) -> Result<Option<Run>, ResultStoreError> {
        let (pair, revision) = (pair.clone(), revision.to_owned());
        self.read("look for the run of a revision", move |txn, _| Ok(run_of_revision(txn, &pair, &revision)?)).await
    }

    async fn last_build_version(&self, codebase: &CodebaseName, distribution: &str) -> Result<Option<String>, ResultStoreError> {
        let key = keys::highest_version(codebase, distribution);
        self.read("look up the last version built", move |txn, _| Ok(txn.get(&key)?)).await
    }

    async fn finished_since(&self, since: Time) -> Result<FinishedCounts, ResultStoreError> {
        self.read("count the finished runs", move |txn, _| Ok(finished_since(txn, since)?)).await
    }

    async fn check(&self) -> Result<(), ResultStoreError> {
        // A change, so that the writer and the disk are asked too.
        self.write("check the store", |txn, _| {
            txn.put(keys::meta("checked"), &true)?;
            Ok(())
        })
        .await
    }
}
