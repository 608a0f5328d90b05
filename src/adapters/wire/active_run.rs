//! Active runs, and the request for an assignment.

use crate::{
    domain::{
        Invalid,
        active_run::{ActiveRun, BackchannelAddress, Claimant},
        caller::Caller,
        invalid::bounded_text,
        time::{Time, iso, iso_seconds, seconds_between},
    },
    ports::event_bus::Status,
    services::assign::AssignRequest,
};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The branch of the codebase.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct VcsResponse {
    /// The version control system; absent while it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vcs_type: Option<String>,
    /// The URL of the branch; absent while there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) branch_url: Option<String>,
    /// The folder of the codebase within the branch; absent for the whole branch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subpath: Option<String>,
}

/// A queue item that a worker holds. Durations are seconds, times ISO 8601 in UTC without a zone.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ActiveRunResponse {
    /// The id of the queue item.
    pub(crate) queue_id: i64,
    /// The id of the run.
    pub(crate) id: String,
    /// The name of the codebase.
    pub(crate) codebase: String,
    /// The change set that it is of; null when the run makes one of its own.
    pub(crate) change_set: Option<String>,
    /// The name of the campaign.
    pub(crate) campaign: String,
    /// The command that the worker runs.
    pub(crate) command: String,
    /// The expected duration, in seconds.
    pub(crate) estimated_duration: Option<f64>,
    /// The seconds since it was assigned.
    pub(crate) current_duration: f64,
    /// The time at which it was assigned.
    pub(crate) start_time: String,
    /// The name of its worker.
    pub(crate) worker: Option<String>,
    /// A page about the worker, for people to read.
    pub(crate) worker_link: Option<String>,
    /// The branch of the codebase.
    pub(crate) vcs: VcsResponse,
    /// The way to reach the worker: `{}`, `{my_url}` or `{my_url, jenkins}`.
    #[schema(value_type = Object)]
    pub(crate) backchannel: BTreeMap<Cow<'static, str>, Option<String>>,
    /// The context of the queue item.
    pub(crate) instigated_context: Option<String>,
    /// The id of the earlier run whose branch it continues from.
    pub(crate) resume_from: Option<String>,
    /// The end of its worker's lease; absent without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lease_until: Option<String>,
    /// Why its worker must stop; absent while it may go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cancel: Option<String>,
    #[serde(flatten)]
    pub(crate) watched: Option<WatchedResponse>,
}

/// The heartbeats of a run.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct WatchedResponse {
    /// The time of the last heartbeat.
    #[serde(rename = "last-keepalive")]
    pub(crate) last_keepalive: String,
    /// The seconds since the last heartbeat.
    pub(crate) keepalive_age: f64,
    /// Whether the last heartbeat is older than the run timeout.
    pub(crate) mia: bool,
}

/// Returns the address in the form of the Python runner: a Jenkins job has a key `jenkins` without
/// a value.
fn backchannel(
    address: Option<&BackchannelAddress>,
) -> BTreeMap<Cow<'static, str>, Option<String>> {
    let my_url = |url: &String| ("my_url".into(), Some(url.clone()));
    match address {
        None => BTreeMap::new(),
        Some(BackchannelAddress::Http { url }) => BTreeMap::from([my_url(url)]),
        Some(BackchannelAddress::Jenkins { url }) => {
            BTreeMap::from([my_url(url), ("jenkins".into(), None)])
        }
    }
}

impl ActiveRunResponse {
    /// Creates the response for a run that is shown by itself.
    pub fn new(run: &ActiveRun, now: Time) -> Self {
        let item = &run.item;
        Self {
            queue_id: item.id,
            id: run.id.to_string(),
            codebase: item.key.codebase.to_string(),
            change_set: item.key.change_set.clone(),
            campaign: item.key.campaign.to_string(),
            command: item.command.clone(),
            estimated_duration: item.estimated_duration,
            current_duration: run.age(now),
            start_time: iso(run.start_time),
            worker: run.claimant.worker.clone(),
            worker_link: run.claimant.worker_link.clone(),
            vcs: VcsResponse {
                vcs_type: run.vcs.vcs_type.map(|vcs| vcs.to_string()),
                branch_url: run.vcs.branch_url.clone(),
                subpath: run.vcs.subpath.clone(),
            },
            backchannel: backchannel(run.claimant.backchannel.as_ref()),
            instigated_context: item.context.clone(),
            resume_from: run.resume_from.as_ref().map(ToString::to_string),
            lease_until: run.lease_until.map(iso),
            cancel: run.cancel.clone(),
            watched: None,
        }
    }

    /// Creates the response for a run in a list, with its heartbeats.
    pub fn watched(run: &ActiveRun, now: Time, timeout: TimeDelta) -> Self {
        let age = seconds_between(run.keepalive, now);
        let timeout = seconds_between(now, now + timeout);
        let watched = WatchedResponse {
            last_keepalive: iso_seconds(run.keepalive),
            keepalive_age: age,
            mia: age > timeout,
        };
        Self {
            watched: Some(watched),
            ..Self::new(run, now)
        }
    }
}

/// The active runs; also published on the channel `queue`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StatusResponse {
    /// The active runs, the oldest first.
    pub processing: Vec<ActiveRunResponse>,
    /// The hosts from which the settings assign nothing.
    pub(crate) avoid_hosts: Vec<String>,
    /// The hosts that limit our rate, with the end of each backoff.
    pub(crate) rate_limit_hosts: BTreeMap<String, String>,
    /// The hosts that are not probed for a moment, since they did not respond in time; absent when
    /// there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) slow_hosts: Vec<String>,
}

impl StatusResponse {
    /// Creates the response for a status; `timeout` is the run timeout.
    pub fn new(status: &Status, timeout: TimeDelta) -> Self {
        Self {
            processing: status
                .processing
                .iter()
                .map(|run| ActiveRunResponse::watched(run, status.now, timeout))
                .collect(),
            avoid_hosts: status.avoid_hosts.clone(),
            slow_hosts: status.slow_hosts.clone(),
            rate_limit_hosts: status
                .rate_limit_hosts
                .iter()
                .map(|limit| (limit.host.clone(), iso(limit.until)))
                .collect(),
        }
    }
}

/// The address at which the worker can be reached.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct BackchannelRequest {
    /// `http` or `jenkins`; anything else, or nothing, when the worker cannot be reached.
    pub(crate) kind: Option<String>,
    /// The URL of the worker's server or of the Jenkins build.
    pub(crate) url: Option<String>,
}

/// A worker's request for an assignment.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct AssignmentRequest {
    /// The name of the worker; ignored when the worker has logged in.
    pub(crate) worker: Option<String>,
    /// The name of the worker, as newer workers send it.
    pub(crate) node: Option<String>,
    /// A page about the worker, for people to read.
    pub(crate) worker_link: Option<String>,
    /// The address at which the worker can be reached.
    pub(crate) backchannel: Option<BackchannelRequest>,
    /// Assign only items of this codebase.
    pub(crate) codebase: Option<String>,
    /// Assign only items of this campaign.
    pub(crate) campaign: Option<String>,
    /// Whether the worker takes part in leases: it renews its claim by keepalives.
    pub(crate) lease: Option<bool>,
}

/// The maximum length of a name, in characters.
const MAX_NAME: usize = 200;
/// The maximum length of a URL, in characters.
const MAX_URL: usize = 4096;
/// How many characters of an unknown kind are logged.
const MAX_LOGGED_KIND: usize = 50;

impl BackchannelRequest {
    fn address(self) -> Result<Option<BackchannelAddress>, Invalid> {
        let address = match self.kind.as_deref() {
            None => return Ok(None),
            Some("http") => |url| BackchannelAddress::Http { url },
            Some("jenkins") => |url| BackchannelAddress::Jenkins { url },
            Some(kind) => {
                let kind: String = kind.chars().take(MAX_LOGGED_KIND).collect();
                tracing::warn!(kind, "a worker names a backchannel of an unknown kind");
                return Ok(None);
            }
        };
        let url = self
            .url
            .ok_or_else(|| Invalid::new("backchannel.url", "is missing"))?;
        let url = bounded_text("backchannel.url", MAX_URL, url)?;
        let parsed = url::Url::parse(&url)
            .map_err(|e| Invalid::new("backchannel.url", format!("is not a URL: {e}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(Invalid::new(
                "backchannel.url",
                "is not an http or https URL",
            ));
        }
        Ok(Some(address(url)))
    }
}

impl AssignmentRequest {
    /// Returns whether the worker is of the newer generation, which cannot read some nulls.
    pub fn is_newer_generation(&self) -> bool {
        self.node.is_some()
    }

    /// Returns the request of that caller.
    ///
    /// # Errors
    ///
    /// When a field is not valid.
    pub fn request(self, caller: Caller) -> Result<AssignRequest, Invalid> {
        let clean = |field: &str, max: usize, value: Option<String>| {
            value
                .map(|value| bounded_text(field, max, value))
                .transpose()
        };
        // A worker that has logged in is that one, whatever the body says: no worker may claim
        // items in the name of another.
        let named = self.node.or_else(|| self.worker.clone());
        let is_limited = matches!(caller, Caller::Worker(_));
        let worker = caller
            .into_worker()
            .or(self.worker)
            .or_else(|| named.clone());
        // Fleets share an account: each machine then names itself.
        let node = named.filter(|node| !node.is_empty() && Some(node) != worker.as_ref());
        let claimant = Claimant {
            worker: clean("worker", MAX_NAME, worker)?,
            worker_link: clean("worker_link", MAX_URL, self.worker_link)?,
            backchannel: self.backchannel.unwrap_or_default().address()?,
            node: clean("node", MAX_NAME, node)?,
            has_responded: false,
        };
        Ok(AssignRequest {
            claimant,
            codebase: self.codebase,
            campaign: self.campaign,
            lease: self.lease.unwrap_or(false),
            is_limited,
        })
    }
}
