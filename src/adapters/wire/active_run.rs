//! Active runs, and the wish for work.

use crate::{
    domain::{
        Invalid,
        active_run::{ActiveRun, BackchannelAddress, Claimant},
        invalid::text,
        time::{Time, iso, iso_seconds, seconds_between},
    },
    ports::event_bus::Status,
    services::{assign::AssignRequest, watch::Watched},
};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};
use utoipa::ToSchema;

/// Where the codebase's branch is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct VcsResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vcs_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) branch_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) subpath: Option<String>,
}

/// A queue item that a worker holds. Durations are seconds, times ISO 8601 in UTC without a zone.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ActiveRunResponse {
    pub(crate) queue_id: i64,
    pub(crate) id: String,
    pub(crate) codebase: String,
    pub(crate) change_set: Option<String>,
    pub(crate) campaign: String,
    pub(crate) command: String,
    pub(crate) estimated_duration: Option<f64>,
    pub(crate) current_duration: f64,
    pub(crate) start_time: String,
    pub(crate) worker: Option<String>,
    pub(crate) worker_link: Option<String>,
    pub(crate) vcs: VcsResponse,
    /// `{}`, `{my_url}` or `{my_url, jenkins}`.
    #[schema(value_type = Object)]
    pub(crate) backchannel: BTreeMap<Cow<'static, str>, Option<String>>,
    pub(crate) instigated_context: Option<String>,
    pub(crate) resume_from: Option<String>,
    /// Until when its worker has it for sure; absent without a lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) lease_until: Option<String>,
    /// Why its worker is to stop; absent while it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cancel: Option<String>,
    #[serde(flatten)]
    pub(crate) watched: Option<WatchedResponse>,
}

/// How its watching goes.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct WatchedResponse {
    #[serde(rename = "last-keepalive")]
    pub(crate) last_keepalive: String,
    pub(crate) keepalive_age: f64,
    /// The age of the last sign of life over the run timeout.
    pub(crate) mia: f64,
}

fn backchannel(
    address: Option<&BackchannelAddress>,
) -> BTreeMap<Cow<'static, str>, Option<String>> {
    match address {
        None => BTreeMap::new(),
        Some(BackchannelAddress::Http { url }) => {
            BTreeMap::from([("my_url".into(), Some(url.clone()))])
        }
        Some(BackchannelAddress::Jenkins { url }) => BTreeMap::from([
            ("my_url".into(), Some(url.clone())),
            ("jenkins".into(), None),
        ]),
    }
}

impl ActiveRunResponse {
    /// As shown by itself.
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

    /// As shown among others, with how its watching goes.
    pub fn watched(run: &ActiveRun, now: Time, timeout: TimeDelta) -> Self {
        let age = seconds_between(run.keepalive, now);
        let timeout = seconds_between(now, now + timeout);
        let watched = WatchedResponse {
            last_keepalive: iso_seconds(run.keepalive),
            keepalive_age: age,
            mia: age / timeout,
        };
        Self {
            watched: Some(watched),
            ..Self::new(run, now)
        }
    }
}

/// What runs now; also sent on the channel `queue`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct StatusResponse {
    /// The active runs, the oldest first.
    pub processing: Vec<ActiveRunResponse>,
    pub(crate) avoid_hosts: Vec<String>,
    /// Until when each host is left alone.
    pub(crate) rate_limit_hosts: BTreeMap<String, String>,
}

impl StatusResponse {
    /// The shape of a status.
    pub fn new(status: &Status, timeout: TimeDelta) -> Self {
        Self {
            processing: status
                .processing
                .iter()
                .map(|run| ActiveRunResponse::watched(run, status.now, timeout))
                .collect(),
            avoid_hosts: status.avoid_hosts.clone(),
            rate_limit_hosts: status
                .rate_limit_hosts
                .iter()
                .map(|limit| (limit.host.clone(), iso(limit.until)))
                .collect(),
        }
    }
}

/// The way to reach the worker.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct BackchannelRequest {
    /// `http` or `jenkins`.
    kind: Option<String>,
    url: Option<String>,
}

/// A wish for work.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
pub struct AssignmentRequest {
    worker: Option<String>,
    /// What newer workers call themselves.
    node: Option<String>,
    worker_link: Option<String>,
    backchannel: Option<BackchannelRequest>,
    codebase: Option<String>,
    campaign: Option<String>,
    /// The worker takes part in leases: it renews its claim by keepalives.
    lease: Option<bool>,
}

/// How the watching of a run goes.
#[derive(Debug, Serialize, ToSchema)]
struct WatchResponse {
    id: String,
    worker: Option<String>,
    start_time: String,
    /// Seconds since the last sign of life.
    keepalive_age: f64,
    /// There is no reason to doubt it.
    alive: bool,
    /// Pings in a row that said the run is lost.
    failures: u32,
    /// One of alive, silent, suspect, `lease ran out`, cancelled.
    status: &'static str,
}

/// How the watching of all active runs goes.
#[derive(Debug, Serialize, ToSchema)]
pub struct WatchdogResponse {
    /// `ok`, or why nobody watches.
    status: String,
    active_runs: usize,
    runs: Vec<WatchResponse>,
}

impl WatchdogResponse {
    /// The shape of an overview.
    pub fn new(runs: &[Watched], stands_still: Option<String>, now: Time) -> Self {
        let shape = |Watched { run, status }: &Watched| WatchResponse {
            id: run.id.to_string(),
            worker: run.claimant.worker.clone(),
            start_time: iso(run.start_time),
            keepalive_age: run.keepalive_age(now),
            alive: matches!(*status, "alive" | "cancelled"),
            failures: run.failures,
            status,
        };
        Self {
            status: stands_still.unwrap_or_else(|| "ok".to_owned()),
            active_runs: runs.len(),
            runs: runs.iter().map(shape).collect(),
        }
    }
}

impl BackchannelRequest {
    fn address(self) -> Result<Option<BackchannelAddress>, Invalid> {
        let Some(kind) = self.kind else {
            return Ok(None);
        };
        let url = self
            .url
            .ok_or_else(|| Invalid::new("backchannel.url", "is missing"))?;
        let parsed = url::Url::parse(&url)
            .map_err(|e| Invalid::new("backchannel.url", format!("is not a URL: {e}")))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(Invalid::new(
                "backchannel.url",
                "is not an http or https URL",
            ));
        }
        match kind.as_str() {
            "http" => Ok(Some(BackchannelAddress::Http { url })),
            "jenkins" => Ok(Some(BackchannelAddress::Jenkins { url })),
            _ => Err(Invalid::new(
                "backchannel.kind",
                "is neither http nor jenkins",
            )),
        }
    }
}

impl AssignmentRequest {
    /// Workers of the newer generation cannot read some nulls.
    pub fn is_newer_generation(&self) -> bool {
        self.node.is_some()
    }

    /// The request; an authenticated worker is that one whatever the body says.
    pub fn request(self, authenticated: Option<String>) -> Result<AssignRequest, Invalid> {
        let clean =
            |field: &str, value: Option<String>| value.map(|value| text(field, value)).transpose();
        let claimant = Claimant {
            worker: clean("worker", authenticated.or(self.worker).or(self.node))?,
            worker_link: clean("worker_link", self.worker_link)?,
            backchannel: self.backchannel.unwrap_or_default().address()?,
        };
        Ok(AssignRequest {
            claimant,
            codebase: self.codebase,
            campaign: self.campaign,
            lease: self.lease.unwrap_or(false),
        })
    }
}
