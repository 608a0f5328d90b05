//! Active runs: queue items that a worker holds now.

use super::{
    name::RunId,
    queue::{Bucket, QueueItem, QueueKey},
    run::Run,
    time::{Time, seconds_between},
    vcs::VcsType,
};
use chrono::TimeDelta;
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
    /// The host of its codebase, which limits count by.
    #[serde(default)]
    pub host: Option<String>,
    /// Until when the worker has it for sure; none when the worker does not take part in leases.
    #[serde(default, with = "super::time::as_iso::option")]
    pub lease_until: Option<Time>,
    /// Why the worker is to stop, once somebody said so.
    #[serde(default)]
    pub cancel: Option<String>,
    /// Pings in a row that said the run is lost.
    #[serde(default)]
    pub failures: u32,
}

impl ActiveRun {
    /// The claim of `item` at `now`.
    pub fn new(id: RunId, token: String, item: QueueItem, claimant: Claimant, now: Time) -> Self {
        Self {
            id,
            token,
            item,
            claimant,
            start_time: now,
            keepalive: now,
            vcs: RunVcs::default(),
            resume_from: None,
            host: None,
            lease_until: None,
            cancel: None,
            failures: 0,
        }
    }

    /// A sign of life at `now`: an older one than is known changes nothing. A lease then lasts `lease` from it.
    pub fn renew(&mut self, now: Time, lease: TimeDelta) {
        if now >= self.keepalive {
            self.keepalive = now;
            self.failures = 0;
            self.lease_until = self.lease_until.map(|until| until.max(now + lease));
        }
    }

    /// The active run that a stored run was, as far as a result that comes late needs it.
    pub fn of_ended(run: &Run) -> Self {
        let item = QueueItem {
            id: run.queue_id,
            key: run.key(),
            bucket: Bucket::default(),
            priority: 0,
            command: run.command.clone(),
            context: run.instigated_context.clone(),
            estimated_duration: None,
            refresh: false,
            requester: None,
        };
        let claimant = Claimant {
            worker: run.worker.clone(),
            worker_link: run.worker_link.clone(),
            backchannel: None,
        };
        Self {
            vcs: RunVcs {
                vcs_type: run.vcs_type,
                branch_url: run.branch_url.clone(),
                subpath: run.subpath.clone(),
            },
            resume_from: run.resume_from.clone(),
            ..Self::new(
                run.id.clone(),
                String::new(),
                item,
                claimant,
                run.start_time,
            )
        }
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
