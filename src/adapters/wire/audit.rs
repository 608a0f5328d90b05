//! The audit log.

use crate::{
    domain::{audit::AuditEntry, time::iso},
    ports::audit_log::AuditPage,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A change that somebody made.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditEntryResponse {
    /// The id; a later entry has a higher one.
    pub(crate) id: i64,
    /// The time of the change.
    pub(crate) at: String,
    /// Who made it: the name of a token or user.
    pub(crate) who: String,
    /// The address that the request came from.
    pub(crate) address: Option<String>,
    /// What was done, such as `worker.add`.
    pub(crate) action: String,
    /// The name of what was changed.
    pub(crate) object: String,
    /// How that was before; null when it is new.
    #[schema(value_type = Object, nullable)]
    pub(crate) before: Option<Value>,
    /// How it was afterwards; null when it is gone.
    #[schema(value_type = Object, nullable)]
    pub(crate) after: Option<Value>,
    /// The id of the request, which is also in the logs.
    pub(crate) request_id: Option<String>,
}

impl From<AuditEntry> for AuditEntryResponse {
    fn from(entry: AuditEntry) -> Self {
        let record = entry.record;
        Self {
            id: entry.id,
            at: iso(record.at),
            who: record.who,
            address: record.address,
            action: record.action,
            object: record.object,
            before: record.before,
            after: record.after,
            request_id: record.request_id,
        }
    }
}

/// A page of the audit log.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AuditResponse {
    /// The entries, latest first. There may be none although `next` is not null.
    pub(crate) audit: Vec<AuditEntryResponse>,
    /// The `cursor` of the next page; null after the last one.
    pub(crate) next: Option<i64>,
}

impl From<AuditPage> for AuditResponse {
    fn from(page: AuditPage) -> Self {
        Self {
            audit: page.entries.into_iter().map(Into::into).collect(),
            next: page.next,
        }
    }
}
