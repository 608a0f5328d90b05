//! Active runs: queue items that a worker holds now.

use super::{
    name::RunId,
    queue::{QueueItem, QueueKey},
    time::{Time, seconds_between},
    vcs::VcsType,
};
use serde::{Deserialize, Serialize};

/// The way to reach a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
#[expect(missing_docs)]
pub enum BackchannelAddress {
    /// The worker itself serves HTTP.
    Http { url: String },
    /// The worker is a Jenkins job.
    Jenkins { url: String },
}

/// What was found out about the codebase's branch when the run was handed out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs)]
pub struct RunVcs {
    pub vcs_type: Option<VcsType>,
    pub branch_url: Option<String>,
    pub subpath: Option<String>,
}

/// Who asks for work.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs)]
pub struct Claimant {
    pub worker: Option<String>,
    pub worker_link: Option<String>,
    pub backchannel: Option<BackchannelAddress>,
}

/// A queue item that a worker holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActiveRun {
    /// Becomes the run's id.
    pub id: RunId,
    /// Proves who holds the claim; renewing, finishing and releasing need it.
    pub token: String,
    /// What is run.
    pub item: QueueItem,
    /// Who holds it.
    #[serde(flatten)]
    pub claimant: Claimant,
    /// When it was handed out.
    #[serde(with = "super::time::as_iso")]
    pub start_time: Time,
    /// The last sign of life.
    #[serde(with = "super::time::as_iso")]
    pub keepalive: Time,
    /// Where its branch is.
    pub vcs: RunVcs,
    /// The run that it continues.
    pub resume_from: Option<RunId>,
}

impl ActiveRun {
    /// The claim of `item` at `now`.
    pub fn new(id: RunId, token: String, item: QueueItem, claimant: Claimant, now: Time) -> Self {
        Self { id, token, item, claimant, start_time: now, keepalive: now, vcs: RunVcs::default(), resume_from: None }
    }

    /// What it is a run of.
    pub fn key(&self) -> &QueueKey {
        &self.item.key
    }

    /// Seconds since it was handed out.
    pub fn age(&self, now: Time) -> f64 {
        seconds_between(self.start_time, now)
    }

    /// Seconds since the last sign of life.
    pub fn keepalive_age(&self, now: Time) -> f64 {
        seconds_between(self.keepalive, now)
    }
}
