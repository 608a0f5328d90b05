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

/// The address at which a worker can be reached while it holds a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum BackchannelAddress {
    /// The worker itself serves HTTP.
    Http {
        /// The base URL of its server.
        url: String,
    },
    /// The worker is a Jenkins job.
    Jenkins {
        /// The URL of the build.
        url: String,
    },
}

/// The branch of the codebase as it was probed when the run was assigned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunVcs {
    /// The version control system of the branch.
    pub vcs_type: Option<VcsType>,
    /// The URL of the branch.
    pub branch_url: Option<String>,
    /// The folder of the codebase within the branch.
    pub subpath: Option<String>,
}

/// The worker that claims a queue item, as it describes itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claimant {
    /// The name of the worker; none when the request named none.
    pub worker: Option<String>,
    /// A page about the worker, for people to read.
    pub worker_link: Option<String>,
    /// The address at which the worker can be reached.
    pub backchannel: Option<BackchannelAddress>,
    /// The machine or process that asks, where its account is that of a whole fleet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Whether the backchannel has responded as a worker does since the run was assigned. A
    /// connection that is refused before that may only mean that the address cannot be reached
    /// from here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_responded: bool,
}

impl Claimant {
    /// Returns the name under which failures are counted and quarantined: the account, or
    /// `ACCOUNT/NODE` where the node is known.
    pub fn counted_name(&self) -> Option<String> {
        let worker = self.worker.as_ref()?;
        Some(match &self.node {
            Some(node) => format!("{worker}/{node}"),
            None => worker.clone(),
        })
    }
}

/// A queue item that a worker holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ActiveRun {
    /// The id of the claim, which becomes the id of the stored [`Run`].
    pub id: RunId,
    /// The secret that proves who holds the claim; renewing, finishing and releasing need it.
    pub token: String,
    /// The queue item that is claimed.
    pub item: QueueItem,
    /// The worker that holds it.
    #[serde(flatten)]
    pub claimant: Claimant,
    /// The time at which it was assigned.
    #[serde(with = "super::time::as_iso")]
    pub start_time: Time,
    /// The time of the last heartbeat.
    #[serde(with = "super::time::as_iso")]
    pub keepalive: Time,
    /// The branch that it works on.
    pub vcs: RunVcs,
    /// The earlier run whose branch it continues from.
    pub resume_from: Option<RunId>,
    /// The host of its codebase, by which concurrency limits count.
    #[serde(default)]
    pub host: Option<String>,
    /// The end of the worker's lease; none when the worker does not take part in leases.
    #[serde(default, with = "super::time::as_iso::option")]
    pub lease_until: Option<Time>,
    /// The reason for which the worker must stop; none while it may go on.
    #[serde(default)]
    pub cancel: Option<String>,
    /// The number of pings in a row that reported the run as lost.
    #[serde(default)]
    pub failures: u32,
}

impl ActiveRun {
    /// Creates the claim of `item` at `now`, without a lease.
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

    /// Records a heartbeat at `now`, and extends the lease, if there is one, to `now + lease`.
    ///
    /// A heartbeat that is older than the last one changes nothing.
    pub fn renew(&mut self, now: Time, lease: TimeDelta) {
        // Heartbeats may arrive out of order: an upload and a keepalive run side by side, maybe in
        // two processes. The older one must not shorten a lease or hide a newer heartbeat.
        if now >= self.keepalive {
            self.keepalive = now;
            self.failures = 0;
            self.lease_until = self.lease_until.map(|until| until.max(now + lease));
        }
    }

    /// Rebuilds the active run of a stored run, as far as a late result needs it.
    ///
    /// The token is empty, because the claim has ended.
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
            ..Claimant::default()
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

    /// Returns the codebase, campaign and change set that it is a run of.
    pub fn key(&self) -> &QueueKey {
        &self.item.key
    }

    /// Returns the seconds since it was assigned.
    pub fn age(&self, now: Time) -> f64 {
        seconds_between(self.start_time, now)
    }

    /// Returns the seconds since the last heartbeat.
    pub fn keepalive_age(&self, now: Time) -> f64 {
        seconds_between(self.keepalive, now)
    }
}
