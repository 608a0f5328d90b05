//! Facts for schedules, and follow-up schedules to come, on the embedded stores.

use super::{
    candidates, codebases, keys,
    records::{Durations, StoredFollowUp, StoredPast},
    store::Embedded,
    txn::{Txn, decode},
};
use crate::{
    domain::{
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

/// Returns the mean duration of runs, `None` without runs.
fn mean<'a>(runs: impl IntoIterator<Item = &'a PastRun>) -> Option<f64> {
    runs.into_iter()
        .fold(Durations::default(), |durations, run| {
            durations.with(run.duration)
        })
        .mean()
}

/// Returns the runs under a prefix that schedules count: those that did not fail for a transient
/// reason.
fn effective_past(txn: &Txn<'_>, prefix: &keys::Key) -> Result<Vec<PastRun>, Fault> {
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
    let candidate = candidates::of_key(txn, key)?;
    let codebase_value = match codebases::get(txn, &key.codebase)? {
        None => CodebaseValue::Unknown,
        Some(codebase) => codebase
            .value
            .map_or(CodebaseValue::Unset, CodebaseValue::Of),
    };
    let history = effective_past(txn, &keys::past_of_pair(&key.pair()))?;
    let mut means = MeanDurations {
        pair: mean(&history),
        ..MeanDurations::default()
    };
    // Read only when needed: a codebase may have a long history.
    if means.pair.is_none() {
        let of_codebase = effective_past(txn, &keys::past_of_codebase(&key.codebase))?;
        means.codebase = mean(&of_codebase);
        means.campaign = txn
            .get::<Durations>(&keys::durations_of_campaign(&key.campaign))?
            .and_then(|durations| durations.mean());
    }
    // Merge proposals are stored by the publisher, which works with Postgres only.
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
        let codebase = names.next().unwrap_or_default();
        let campaign_of_run = names.next().unwrap_or_default();
        if campaign_of_run == campaign.as_str().as_bytes()
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
    #[tracing::instrument(
        name = "embedded.schedule_store.facts", level = "debug", skip_all, fields(keys = keys.len())
    )]
    async fn facts(&self, keys: &[QueueKey]) -> Result<Vec<ScheduleFacts>, Fault> {
        let keys = keys.to_vec();
        self.read("gather the facts for schedules", move |txn, _| {
            let highest = highest_value(txn)?;
            keys.iter().map(|key| facts(txn, key, highest)).collect()
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.schedule_store.last_effective_runs", level = "debug", skip_all,
        fields(campaign.name = %campaign)
    )]
    async fn last_effective_runs(&self, campaign: &CampaignName) -> Result<Vec<Run>, Fault> {
        let campaign = campaign.clone();
        self.read("list last effective runs", move |txn, _| {
            last_effective_runs(txn, &campaign)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.schedule_store.follow_ups",
        level = "debug",
        skip_all,
        fields(limit)
    )]
    async fn follow_ups(&self, limit: usize) -> Result<Vec<FollowUp>, Fault> {
        self.read("list follow-ups", move |txn, _| follow_ups(txn, limit))
            .await
    }

    #[tracing::instrument(
        name = "embedded.schedule_store.drop_follow_ups", level = "debug", skip_all,
        fields(follow_ups = ids.len())
    )]
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
