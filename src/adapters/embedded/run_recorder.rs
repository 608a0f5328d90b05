//! Recording runs on the embedded stores: the one step in which a claim becomes a stored run.

use super::{
    change_sets, items, keys,
    memory_index::MemoryIndex,
    outbox,
    records::{Durations, Moment, StoredFollowUp, StoredPast},
    store::Embedded,
    txn::Txn,
};
use crate::{
    domain::{
        changes,
        name::RunId,
        retry::Disposition,
        run::{Run, RunBrief, Target},
        time::Time,
    },
    ports::{
        Fault, RunRecorder, RunStoreError,
        run_recorder::{LateOutcome, LateRun, NewRun, Recorded},
    },
};
use async_trait::async_trait;

/// How many minutes the counts of finished runs are kept: a day, and an hour to spare.
const MAX_COUNTED_MINUTES: i64 = 25 * 60;

/// Stores what schedules need to know of a run.
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
    let key = keys::past(&run.key().pair(), run.start_time, &run.id);
    txn.put(key, &past)?;
    if run.is_transient() {
        return Ok(());
    }
    let key = keys::durations_of_campaign(&run.campaign);
    let durations: Durations = txn.get(&key)?.unwrap_or_default();
    txn.put(key, &durations.with(run.duration()))
}

/// Keeps the highest version built of a codebase, for a distribution.
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

/// Counts a finished run by minute and result code, and deletes a count that is too old.
fn count_finished(txn: &mut Txn<'_>, run: &Run, now: Time) -> Result<(), Fault> {
    let minute = now.timestamp().div_euclid(60);
    let is_new_count = txn.add(keys::finished(minute, run.code.as_str()), 1)? == 1;
    // Each new count deletes at most one old one, so that no request pays for many.
    let oldest = if is_new_count {
        txn.first(&keys::all_finished())?
    } else {
        None
    };
    if let Some((key, _)) = oldest.filter(|(key, _)| {
        keys::first_number(key).is_some_and(|oldest| oldest < minute - MAX_COUNTED_MINUTES)
    }) {
        txn.delete(keys::Key(key));
    }
    Ok(())
}

/// Stores a run with all that follows from it, and its outbox entry; returns its sequence number.
fn store(txn: &mut Txn<'_>, run: &Run, now: Time) -> Result<u64, Fault> {
    if let Some(change_set) = run.key().change_set {
        change_sets::ensure(txn, &change_set, &run.campaign)?;
    }
    txn.put(keys::run(&run.id), run)?;
    let sequence = txn.add(keys::meta("last_run_sequence"), 1)?;
    txn.put(keys::stored(now, sequence), &run.id)?;
    store_past(txn, run)?;
    store_version(txn, run)?;
    count_finished(txn, run, now)?;
    outbox::add(txn, &run.id, None)?;
    Ok(sequence)
}

fn add_follow_up(txn: &mut Txn<'_>, run: &Run, id: u64) -> Result<(), Fault> {
    let follow_up = StoredFollowUp {
        run_id: run.id.clone(),
        key: run.key(),
        context: run.context.clone(),
    };
    txn.put(keys::follow_up(id), &follow_up)
}

/// Keeps which run of an item was abandoned, as long as no later run of the item is recorded.
fn set_abandoned_run(txn: &mut Txn<'_>, run: &Run) -> Result<(), Fault> {
    let key = keys::abandoned_run(run.queue_id);
    if run.given_up {
        return txn.put(key, &run.id);
    }
    if txn.get_bytes(&key)?.is_some() {
        txn.delete(key);
    }
    Ok(())
}

fn require_worker(txn: &Txn<'_>, run: &Run) -> Result<(), RunStoreError> {
    match &run.worker {
        Some(worker) if txn.get_bytes(&keys::worker(worker))?.is_none() => {
            Err(RunStoreError::UnknownWorker(worker.clone()))
        }
        _ => Ok(()),
    }
}

/// Counts the consecutive failures that a worker is at fault for; any other result resets the
/// count.
fn count_failures(
    txn: &mut Txn<'_>,
    counted_name: Option<&str>,
    worker_at_fault: Option<bool>,
) -> Result<(), Fault> {
    let (Some(name), Some(is_at_fault)) = (counted_name, worker_at_fault) else {
        return Ok(());
    };
    let key = keys::worker_failures(name);
    if is_at_fault {
        txn.add(key, 1)?;
    } else if txn.get_bytes(&key)?.is_some() {
        txn.delete(key);
    }
    Ok(())
}

fn record(
    txn: &mut Txn<'_>,
    index: &mut MemoryIndex,
    new: NewRun,
) -> Result<Recorded, RunStoreError> {
    let NewRun {
        run,
        token,
        now,
        disposition,
        unless_seen_after,
        worker_at_fault,
        counted_name,
    } = new;
    // Before the claim is looked at: a repeated request finds no claim any more.
    if let Some(known) = txn.get::<Run>(&keys::run(&run.id))? {
        return Ok(Recorded::AlreadyStored(Box::new(known)));
    }
    let active = index
        .claimed_run(&run.id, &token)
        .filter(|active| unless_seen_after.is_none_or(|seen| active.keepalive <= seen));
    let Some(item) = active.map(|active| active.item.id) else {
        return Err(RunStoreError::ClaimLost(run.id));
    };
    require_worker(txn, &run)?;
    if let (Some(worker), false) = (&run.worker, run.given_up) {
        txn.put(keys::worker_seen(worker), &Moment(now))?;
    }
    count_failures(txn, counted_name.as_deref(), worker_at_fault)?;
    // Before the item is changed: a claimed item would defer its pending request again.
    txn.delete(keys::active(&run.id));
    index.set_active_run(&run.id, None);
    let sequence = store(txn, &run, now)?;
    match disposition {
        Disposition::Complete => {
            items::complete(txn, index, item, now)?;
            add_follow_up(txn, &run, sequence)?;
        }
        Disposition::Requeue(state) => items::requeue(txn, index, item, state, now)?,
    }
    set_abandoned_run(txn, &run)?;
    Ok(Recorded::Stored)
}

fn record_late(
    txn: &mut Txn<'_>,
    index: &mut MemoryIndex,
    LateRun { run, now }: LateRun,
) -> Result<LateOutcome, RunStoreError> {
    let Some(earlier) = txn.get::<Run>(&keys::run(&run.id))? else {
        return Err(RunStoreError::ClaimLost(run.id));
    };
    if !earlier.given_up {
        return Ok(LateOutcome::NotGivenUp(Box::new(earlier)));
    }
    let abandoned: Option<RunId> = txn.get(&keys::abandoned_run(run.queue_id))?;
    // The item has, or will have, the result of another run. It must not be removed under that one.
    let is_superseded = abandoned.as_ref() != Some(&run.id) || index.is_claimed(run.queue_id);
    require_worker(txn, &run)?;
    // The late result may have another start time, which is part of this key.
    txn.delete(keys::past(
        &earlier.key().pair(),
        earlier.start_time,
        &earlier.id,
    ));
    let sequence = store(txn, &run, now)?;
    if is_superseded {
        return Ok(LateOutcome::ReplacedButRequeued);
    }
    items::complete(txn, index, run.queue_id, now)?;
    add_follow_up(txn, &run, sequence)?;
    set_abandoned_run(txn, &run)?;
    Ok(LateOutcome::Replaced)
}

#[async_trait]
impl RunRecorder for Embedded {
    #[tracing::instrument(
        name = "embedded.run_recorder.record", level = "debug", skip_all,
        fields(run.id = %new.run.id)
    )]
    async fn record(&self, new: NewRun) -> Result<Recorded, RunStoreError> {
        let recorded = self
            .write("store a run", move |txn, index| record(txn, index, new))
            .await;
        // The item, its deferred request, or another item that a limit blocked may be claimable
        // now.
        if recorded.is_ok() {
            self.availability.add(1);
        }
        recorded
    }

    #[tracing::instrument(
        name = "embedded.run_recorder.record_late", level = "debug", skip_all,
        fields(run.id = %late.run.id)
    )]
    async fn record_late(&self, late: LateRun) -> Result<LateOutcome, RunStoreError> {
        self.write("store a late run", move |txn, index| {
            record_late(txn, index, late)
        })
        .await
    }
}
