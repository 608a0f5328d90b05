//! The stored records that are not domain types themselves. Their JSON names must not change:
//! stores that were written by earlier versions have them.

use crate::domain::{
    codebase::Codebase,
    name::{CampaignName, RunId},
    publish::PublishStatus,
    queue::{EnqueueRequest, QueueItem, QueueKey},
    retry::ItemState,
    run::RunBrief,
    schedule::PastRun,
    time::Time,
};
use serde::{Deserialize, Serialize};

/// A queue item.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredItem {
    /// The item as clients see it.
    #[serde(flatten)]
    pub(super) item: QueueItem,
    /// A request for the same key that came while the item was claimed; it is applied when the run
    /// ends.
    #[serde(rename = "wish")]
    pub(super) pending_enqueue: Option<EnqueueRequest>,
    /// What earlier runs left: retries, snoozed, parked.
    #[serde(default)]
    pub(super) state: ItemState,
    /// When the item was added.
    #[serde(with = "crate::domain::time::as_iso")]
    pub(super) added: Time,
}

/// The facts of a finished run that schedules need, so that they need not read whole runs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredPast {
    /// What decides which run is the last effective one.
    pub(super) brief: RunBrief,
    /// What a schedule is computed from.
    pub(super) past: PastRun,
    /// The revision that the run made.
    pub(super) revision: Option<String>,
}

/// Number and total duration of the runs of a campaign.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Durations {
    /// Number of runs.
    pub(super) runs: u64,
    /// Their total duration in seconds.
    pub(super) total: f64,
}

impl Durations {
    /// Returns these with one more run of so many seconds.
    pub(super) fn with(&self, seconds: f64) -> Self {
        Self {
            runs: self.runs + 1,
            total: self.total + seconds,
        }
    }

    /// Returns the mean duration in seconds, `None` without runs.
    pub(super) fn mean(&self) -> Option<f64> {
        #[expect(
            clippy::cast_precision_loss,
            reason = "counts of runs are far below 2^53"
        )]
        let runs = self.runs as f64;
        (self.runs > 0).then(|| self.total / runs)
    }
}

/// A codebase.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredCodebase {
    /// The number that is its key.
    pub(super) sequence: u64,
    /// The codebase.
    pub(super) codebase: Codebase,
}

/// A change set.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ChangeSet {
    /// The campaign of its candidates.
    pub(super) campaign: CampaignName,
    /// Its state, as the Janitor's other services name it.
    pub(super) state: String,
}

/// A follow-up schedule to come.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredFollowUp {
    /// The run that it follows.
    pub(super) run_id: RunId,
    /// What that run was of.
    #[serde(flatten)]
    pub(super) key: QueueKey,
    /// That run's context.
    pub(super) context: Option<String>,
}

/// An outbox entry: the result of a run, or a publish status that it got.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredOutboxEntry {
    /// The run.
    pub(super) run_id: RunId,
    /// The publish status; `None` for a result.
    pub(super) publish_status: Option<PublishStatus>,
}

/// A worker's account.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredWorker {
    /// The salted hash of the password.
    pub(super) password: String,
    /// A page about the worker.
    pub(super) link: Option<String>,
}

/// A time by itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Moment(#[serde(with = "crate::domain::time::as_iso")] pub(super) Time);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_enqueue_keeps_its_stored_name() {
        let stored = r#"{"id": 1, "codebase": "aa", "campaign": "gen", "change_set": null,
            "bucket": "default", "priority": 0, "command": "true", "context": null,
            "estimated_duration": null, "refresh": false, "requester": null,
            "wish": {"codebase": "aa", "campaign": "gen", "change_set": null, "bucket": "manual",
                "offset": 1.0, "command": "later", "context": null, "estimated_duration": null,
                "refresh": false, "requester": null},
            "added": "2026-11-23T10:00:00"}"#;
        let item: StoredItem = serde_json::from_str(stored).unwrap();
        let pending = item.pending_enqueue.clone().unwrap();
        assert_eq!(pending.command, "later");
        let written = serde_json::to_value(&item).unwrap();
        assert_eq!(written.pointer("/wish/command").unwrap(), "later");
    }
}
