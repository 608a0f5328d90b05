//! The watcher of the active runs. Times are ISO 8601 in UTC without a zone.

use crate::{
    domain::time::{Time, iso},
    services::watch::Watched,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use utoipa::ToSchema;

/// The state of a run, as the watcher sees it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct WatchResponse {
    /// The id of the run.
    pub(crate) id: String,
    /// The name of its worker.
    pub(crate) worker: Option<String>,
    /// The time at which it was assigned.
    pub(crate) start_time: String,
    /// The seconds since the last heartbeat.
    pub(crate) keepalive_age: f64,
    /// Whether its worker is taken to be alive.
    pub(crate) alive: bool,
    /// The number of pings in a row that reported the run as lost.
    pub(crate) failures: u32,
    /// One of alive, silent, suspect, `lease ran out`, cancelled.
    pub(crate) status: Cow<'static, str>,
}

/// The state of the watcher and of all active runs.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WatchdogResponse {
    /// `ok`, or why the watcher has stalled.
    pub(crate) status: String,
    /// The number of active runs.
    pub(crate) active_runs: usize,
    /// The active runs.
    pub(crate) runs: Vec<WatchResponse>,
}

impl WatchdogResponse {
    /// Creates the response; `stalled` says why the watcher has stalled, if it has.
    pub fn new(runs: &[Watched], stalled: Option<String>, now: Time) -> Self {
        let response = |Watched { run, status }: &Watched| WatchResponse {
            id: run.id.to_string(),
            worker: run.claimant.worker.clone(),
            start_time: iso(run.start_time),
            keepalive_age: run.keepalive_age(now),
            alive: matches!(*status, "alive" | "cancelled"),
            failures: run.failures,
            status: (*status).into(),
        };
        Self {
            status: stalled.unwrap_or_else(|| "ok".to_owned()),
            active_runs: runs.len(),
            runs: runs.iter().map(response).collect(),
        }
    }
}
