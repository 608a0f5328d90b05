//! Runs on the embedded stores.

use super::{
    Embedded, keys,
    memory_index::MemoryIndex,
    queue,
    records::{ChangeSet, Durations, Moment, StoredFollowUp, StoredOutboxEntry, StoredPast},
    txn::{Txn, decode},
};
use crate::{
    domain::{
        changes,
        name::{CodebaseName, RunId},
        publish::PublishStatus,
        retry::Disposition,
        run::{ResultCode, Run, RunBrief, Target},
        schedule::Pair,
        time::Time,
    },
    ports::{
        Fault, RunRecorder, RunStore, RunStoreError,
        run_recorder::{LateOutcome, LateRun, NewRun, Recorded},
        run_store::FinishedCounts,
    },
};
use async_trait::async_trait;
use std::{collections::HashSet, ops::ControlFlow};

/// Minutes of finished runs that are kept, for the figures.
const MINUTES_KEPT: i64 = 25 * 60;

/// Makes a change set unless it is there. One that a run has for itself follows from the run, and is not kept.
pub(super) fn make_change_set(
    txn: &mut Txn<'_>,
    id: &str,
    campaign: &crate::domain::name::CampaignName,
) -> Result<(), Fault> {
    let key = keys::change_set(id);
    if txn.get_bytes(&key)?.is_none() {
        txn.put(
            key,
            &ChangeSet {
                campaign: campaign.clone(),
                state: "created".into(),
            },
        )?;
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
    let past = StoredPast {
        brief,
        past: run.into(),
        revision: run.revision.clone(),
    };
    txn.put(keys::past(&pair_of(run), run.start_time, &run.id), &past)?;
    if run.is_transient() {
        return Ok(());
    }
    let key = keys::durations_of_campaign(&run.campaign);
    let durations: Durations = txn.get(&key)?.unwrap_or_default();
    txn.put(key, &durations.with(run.duration()))
}

fn store_version(txn: &mut Txn<'_>, run: &Run) -> Result<(), Fault> {
    let Some(Target::Debian(package)) = &run.target else {
        return Ok(());
    };
    let key = keys::highest_version(&run.codebase, &package.distribution);
    let earlier: Option<String> = txn.get(&key)?;
    let versions = earlier
        .as_deref()
        .into_iter()
        .chain([package.version.as_str()]);
    match changes::highest(versions) {
        Some(highest) => txn.put(key, &highest),
        None => Ok(()),
    }
}

fn count_finished(txn: &mut Txn<'_>, run: &Run, now: Time) -> Result<(), Fault> {
    let minute = now.timestamp().div_euclid(60);
    let first_of_its_minute = txn.add(keys::finished(minute, run.code.as_str()), 1)? == 1;
    let oldest = if first_of_its_minute {
        txn.first(&keys::all_finished())?
    } else {
        None
    };
    if let Some((key, _)) = oldest.filter(|(key, _)| {
        keys::first_number(key).is_some_and(|oldest| oldest < minute - MINUTES_KEPT)
    }) {
        txn.delete(keys::Key(key));
    }
    Ok(())
}

fn store(txn: &mut Txn<'_>, run: &Run, now: Time) -> Result<u64, Fault> {
    if let Some(change_set) = run.key().change_set {
        make_change_set(txn, &change_set, &run.campaign)?;
    }
    txn.put(keys::run(&run.id), run)?;
    let sequence = txn.add(keys::meta("last_run_sequence"), 1)?;
    txn.put(keys::stored(now, sequence), &run.id)?;
    store_past(txn, run)?;
    store_version(txn, run)?;
    count_finished(txn, run, now)?;
    note_news(txn, &run.id, None)?;
    Ok(sequence)
}

fn note_follow_up(txn: &mut Txn<'_>, run: &Run, id: u64) -> Result<(), Fault> {
    let follow_up = StoredFollowUp {
        run_id: run.id.clone(),
        key: run.key(),
        context: run.context.clone(),
    };
    txn.put(keys::follow_up(id), &follow_up)
}

/// Which run of an item the runner gave up, as long as the item was not run again.
fn note_given_up(txn: &mut Txn<'_>, run: &Run) -> Result<(), Fault> {
    let key = keys::given_up(run.queue_id);
    if run.given_up {
        return txn.put(key, &run.id);
    }
    if txn.get_bytes(&key)?.is_some() {
        txn.delete(key);
    }
    Ok(())
}

fn note_news(
    txn: &mut Txn<'_>,
    run: &RunId,
    publish_status: Option<PublishStatus>,
) -> Result<(), Fault> {
    let id = txn.add(keys::meta("last_news"), 1)?;
    txn.put(
        keys::news(id),
        &StoredOutboxEntry {
            run_id: run.clone(),
            publish_status,
        },
    )
}

fn record(
    txn: &mut Txn<'_>,
    hot: &mut MemoryIndex,
    new: NewRun,
) -> Result<Recorded, RunStoreError> {
    let NewRun {
        run,
        token,
        now,
        disposition,
        unless_seen_after,
        worker_at_fault,
    } = new;
    if let Some(known) = txn.get::<Run>(&keys::run(&run.id))? {
        return Ok(Recorded::AlreadyStored(Box::new(known)));
    }
    let held = hot
        .holder(&run.id, &token)
        .filter(|active| unless_seen_after.is_none_or(|seen| active.keepalive <= seen));
    let Some(item) = held.map(|active| active.item.id) else {
        return Err(RunStoreError::ClaimLost(run.id));
    };
    check_worker(txn, &run)?;
    if let (Some(worker), false) = (&run.worker, run.given_up) {
        txn.put(keys::worker_seen(worker), &Moment(now))?;
    }
    count_failures(txn, &run, worker_at_fault)?;
    txn.delete(keys::active(&run.id));
    hot.set_claim(&run.id, None);
    let sequence = store(txn, &run, now)?;
    match disposition {
        Disposition::Complete => {
            queue::end_item(txn, hot, item, now)?;
            note_follow_up(txn, &run, sequence)?;
        }
        Disposition::Requeue(state) => queue::send_back(txn, hot, item, state, now)?,
    }
    note_given_up(txn, &run)?;
    Ok(Recorded::Stored)
}

fn check_worker(txn: &Txn<'_>, run: &Run) -> Result<(), RunStoreError> {
    match &run.worker {
        Some(worker) if txn.get_bytes(&keys::worker(worker))?.is_none() => {
            Err(RunStoreError::UnknownWorker(worker.clone()))
        }
        _ => Ok(()),
    }
}

/// Counts a worker's failures in a row.
fn count_failures(
    txn: &mut Txn<'_>,
    run: &Run,
    worker_at_fault: Option<bool>,
) -> Result<(), Fault> {
    let (Some(worker), Some(to_blame)) = (&run.worker, worker_at_fault) else {
        return Ok(());
    };
    let key = keys::worker_failures(worker);
    if to_blame {
        txn.add(key, 1)?;
    } else if txn.get_bytes(&key)?.is_some() {
        txn.delete(key);
    }
    Ok(())
}

fn record_late(
    txn: &mut Txn<'_>,
    hot: &mut MemoryIndex,
    LateRun { run, now }: LateRun,
) -> Result<LateOutcome, RunStoreError> {
    let Some(earlier) = txn.get::<Run>(&keys::run(&run.id))? else {
        return Err(RunStoreError::ClaimLost(run.id));
    };
    if !earlier.given_up {
        return Ok(LateOutcome::NotGivenUp(Box::new(earlier)));
    }
    let given_up: Option<RunId> = txn.get(&keys::given_up(run.queue_id))?;
    let run_again = given_up.as_ref() != Some(&run.id) || hot.is_held(run.queue_id);
    check_worker(txn, &run)?;
    txn.delete(keys::past(
        &pair_of(&earlier),
        earlier.start_time,
        &earlier.id,
    ));
    let sequence = store(txn, &run, now)?;
    if run_again {
        return Ok(LateOutcome::ReplacedButRequeued);
    }
    queue::end_item(txn, hot, run.queue_id, now)?;
    note_follow_up(txn, &run, sequence)?;
    note_given_up(txn, &run)?;
    Ok(LateOutcome::Replaced)
}

fn latest(txn: &Txn<'_>, limit: usize) -> Result<Vec<Run>, Fault> {
    let (mut seen, mut runs) = (HashSet::new(), vec![]);
    txn.scan(&keys::all_stored(), |_, value| -> Result<_, Fault> {
        if runs.len() >= limit {
            return Ok(ControlFlow::Break(()));
        }
        let id: RunId = decode(value)?;
        // One whose result came late has two entries; the newer counts.
        if seen.insert(id.clone()) {
            runs.extend(txn.get::<Run>(&keys::run(&id))?);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(runs)
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
            let code =
                String::from_utf8_lossy(key.get(9..key.len() - 1).unwrap_or_default()).into_owned();
            *counts.entry(ResultCode::new(code)).or_default() += decode::<u64>(value)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(counts)
}

#[async_trait]
impl RunRecorder for Embedded {
    async fn record(&self, new: NewRun) -> Result<Recorded, RunStoreError> {
        let recorded = self
            .write("store a run", move |txn, hot| record(txn, hot, new))
            .await;
        // Its item may be free again, or a wish that waited for it, or what a limit held back.
        if recorded.is_ok() {
            self.availability.add(1);
        }
        recorded
    }

    async fn record_late(&self, late: LateRun) -> Result<LateOutcome, RunStoreError> {
        self.write("store a late run", move |txn, hot| {
            record_late(txn, hot, late)
        })
        .await
    }
}

#[async_trait]
impl RunStore for Embedded {
    async fn run(&self, id: &RunId) -> Result<Option<Run>, RunStoreError> {
        let key = keys::run(id);
        self.read("look up a run", move |txn, _| Ok(txn.get(&key)?))
            .await
    }

    async fn latest(&self, limit: usize) -> Result<Vec<Run>, RunStoreError> {
        self.read("list the runs", move |txn, _| Ok(latest(txn, limit)?))
            .await
    }

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
            note_news(txn, &run.id, Some(status))?;
            Ok(Some(run))
        })
        .await
    }

    async fn run_of_revision(
        &self,
        pair: &Pair,
        revision: &str,
    ) -> Result<Option<Run>, RunStoreError> {
        let (pair, revision) = (pair.clone(), revision.to_owned());
        self.read("look for the run of a revision", move |txn, _| {
            Ok(run_of_revision(txn, &pair, &revision)?)
        })
        .await
    }

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

    async fn finished_since(&self, since: Time) -> Result<FinishedCounts, RunStoreError> {
        self.read("count the finished runs", move |txn, _| {
            Ok(finished_since(txn, since)?)
        })
        .await
    }

    async fn health_check(&self) -> Result<(), RunStoreError> {
        // A change, so that the writer and the disk are asked too.
        self.write("check the store", |txn, _| {
            txn.put(keys::meta("checked"), &true)?;
            Ok(())
        })
        .await
    }
}
