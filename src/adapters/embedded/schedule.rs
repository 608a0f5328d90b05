//! Facts for schedules on the embedded stores.

use super::{
    Embedded, keys,
    records::{Durations, StoredFollowUp, StoredPast},
    txn::{Txn, decode},
};
use crate::{
    domain::{
        candidate::{Candidate, CandidateId},
        name::{CampaignName, CodebaseName},
        queue::QueueKey,
        run::{Run, RunBrief, last_effective},
        schedule::{CodebaseValue, MeanDurations, PastRun, ScheduleFacts},
    },
    ports::{Fault, ScheduleStore, queue_store::FollowUpId, schedule_store::FollowUp},
};
use async_trait::async_trait;
use std::{collections::BTreeMap, ops::ControlFlow};

fn highest_value(txn: &Txn<'_>) -> Result<Option<i32>, Fault> {
    let key = txn.last_key(&keys::codebase_values())?;
    Ok(key
        .and_then(|key| keys::first_number(&key))
        .and_then(|value| i32::try_from(value).ok()))
}

fn mean<'a>(runs: impl IntoIterator<Item = &'a PastRun>) -> Option<f64> {
    runs.into_iter()
        .fold(Durations::default(), |durations, run| {
            durations.with(run.duration)
        })
        .mean()
}

/// The runs under a prefix that count: none of them transient.
fn lasting(txn: &Txn<'_>, prefix: &keys::Key) -> Result<Vec<PastRun>, Fault> {
    let past: Vec<StoredPast> = txn.list(prefix, usize::MAX)?;
    Ok(past
        .into_iter()
        .filter(|past| !past.brief.transient)
        .map(|past| past.past)
        .collect())
}

fn facts(
    txn: &Txn<'_>,
    key: &QueueKey,
    highest_value: Option<i32>,
) -> Result<ScheduleFacts, Fault> {
    let candidate = match txn.get::<CandidateId>(&keys::candidate_of(key))? {
        Some(id) => txn.get::<Candidate>(&keys::candidate(id))?,
        None => None,
    };
    let codebase_value = match super::catalog::codebase(txn, &key.codebase)? {
        None => CodebaseValue::Unknown,
        Some(codebase) => codebase
            .value
            .map_or(CodebaseValue::Unset, CodebaseValue::Of),
    };
    let history = lasting(txn, &keys::past_of_pair(&key.pair()))?;
    let mut means = MeanDurations {
        pair: mean(&history),
        ..MeanDurations::default()
    };
    if means.pair.is_none() {
        means.codebase = mean(&lasting(txn, &keys::past_of_codebase(&key.codebase))?);
        means.campaign = txn
            .get::<Durations>(&keys::durations_of_campaign(&key.campaign))?
            .and_then(|durations| durations.mean());
    }
    // Merge proposals are the publisher's, which works on Postgres only.
    Ok(ScheduleFacts {
        candidate,
        codebase_value,
        highest_value,
        history,
        means,
        open_proposal_command: None,
    })
}

fn last_effective_runs(txn: &Txn<'_>, campaign: &CampaignName) -> Result<Vec<Run>, Fault> {
    let mut of_codebase: BTreeMap<CodebaseName, Vec<RunBrief>> = BTreeMap::new();
    txn.scan(&keys::all_past(), |key, value| -> Result<_, Fault> {
        let mut names = key.get(1..).unwrap_or_default().split(|byte| *byte == 0);
        let (codebase, other) = (
            names.next().unwrap_or_default(),
            names.next().unwrap_or_default(),
        );
        if other == campaign.as_str().as_bytes()
            && let Ok(codebase) = CodebaseName::new(String::from_utf8_lossy(codebase))
        {
            of_codebase
                .entry(codebase)
                .or_default()
                .push(decode::<StoredPast>(value)?.brief);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    let ids = of_codebase.values().filter_map(|runs| last_effective(runs));
    let runs = ids
        .map(|id| txn.get(&keys::run(&id)))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(runs.into_iter().flatten().collect())
}

fn follow_ups(txn: &Txn<'_>, limit: usize) -> Result<Vec<FollowUp>, Fault> {
    let mut found = vec![];
    txn.scan(&keys::follow_ups(), |key, value| -> Result<_, Fault> {
        if found.len() >= limit {
            return Ok(ControlFlow::Break(()));
        }
        let id = key
            .last_chunk::<8>()
            .map_or(0, |bytes| FollowUpId::from_be_bytes(*bytes));
        let StoredFollowUp {
            run_id,
            key,
            context,
        } = decode(value)?;
        found.push(FollowUp {
            id,
            run_id,
            key,
            context,
        });
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

#[async_trait]
impl ScheduleStore for Embedded {
    async fn facts(&self, keys: &[QueueKey]) -> Result<Vec<ScheduleFacts>, Fault> {
        let keys = keys.to_vec();
        self.read("gather the facts for schedules", move |txn, _| {
            let highest = highest_value(txn)?;
            keys.iter().map(|key| facts(txn, key, highest)).collect()
        })
        .await
    }

    async fn last_effective_runs(&self, campaign: &CampaignName) -> Result<Vec<Run>, Fault> {
        let campaign = campaign.clone();
        self.read("list last effective runs", move |txn, _| {
            last_effective_runs(txn, &campaign)
        })
        .await
    }

    async fn follow_ups(&self, limit: usize) -> Result<Vec<FollowUp>, Fault> {
        self.read("list follow-ups", move |txn, _| follow_ups(txn, limit))
            .await
    }

    async fn drop_follow_ups(&self, ids: &[FollowUpId]) -> Result<(), Fault> {
        let ids = ids.to_vec();
        self.write("settle follow-ups", move |txn, _| {
            for id in ids {
                txn.delete(keys::follow_up(id));
            }
            Ok(())
        })
        .await
    }
}
