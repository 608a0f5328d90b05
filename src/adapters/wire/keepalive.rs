//! What a worker gets back for a heartbeat, or for a part of a log.

use crate::domain::{active_run::ActiveRun, time::iso};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The state of a run after a heartbeat.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct KeepaliveResponse {
    /// The end of the lease; null without one.
    pub(crate) lease_until: Option<String>,
    /// Why the worker must stop; null while it may go on.
    pub(crate) cancel: Option<String>,
}

impl From<ActiveRun> for KeepaliveResponse {
    fn from(run: ActiveRun) -> Self {
        Self {
            lease_until: run.lease_until.map(iso),
            cancel: run.cancel,
        }
    }
}

/// The state of a log after something was appended.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct SizeResponse {
    /// The size of the log, in bytes.
    pub size: u64,
    /// Why the worker must stop; null while it may go on.
    pub cancel: Option<String>,
}
