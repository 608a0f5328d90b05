//! The records behind the keys, as far as they are not the domain's own.

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

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct StoredItem {
    #[serde(flatten)]
    pub(super) item: QueueItem,
    /// A wish that came while it was held.
    pub(super) wish: Option<EnqueueRequest>,
    #[serde(default)]
    pub(super) state: ItemState,
    #[serde(with = "crate::domain::time::as_iso")]
    pub(super) added: Time,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredPast {
    pub(super) brief: RunBrief,
    pub(super) past: PastRun,
    pub(super) revision: Option<String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Durations {
    pub(super) runs: u64,
    /// Seconds.
    pub(super) total: f64,
}

impl Durations {
    pub(super) fn with(&self, seconds: f64) -> Self {
        Self {
            runs: self.runs + 1,
            total: self.total + seconds,
        }
    }

    pub(super) fn mean(&self) -> Option<f64> {
        // Counts of runs are far below 2^53.
        #[expect(clippy::cast_precision_loss)]
        let runs = self.runs as f64;
        (self.runs > 0).then(|| self.total / runs)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredCodebase {
    pub(super) sequence: u64,
    pub(super) codebase: Codebase,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ChangeSet {
    pub(super) campaign: CampaignName,
    pub(super) state: String,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredFollowUp {
    pub(super) run_id: RunId,
    #[serde(flatten)]
    pub(super) key: QueueKey,
    pub(super) context: Option<String>,
}

/// News of a run: its result, or a publish status that it got.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredOutboxEntry {
    pub(super) run_id: RunId,
    pub(super) publish_status: Option<PublishStatus>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredWorker {
    pub(super) password: String,
    pub(super) link: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Moment(#[serde(with = "crate::domain::time::as_iso")] pub(super) Time);
