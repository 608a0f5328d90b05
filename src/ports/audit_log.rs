//! The audit log: an append-only list of the changes that people made.

use super::Fault;
use crate::domain::{
    audit::{AuditEntry, AuditFilter, AuditId, AuditRecord},
    time::Time,
};
use async_trait::async_trait;

/// Selects a page of the audit log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditQuery {
    /// Which entries.
    pub filter: AuditFilter,
    /// Only entries with lower ids, which are earlier ones; none: from the latest on.
    pub before: Option<AuditId>,
    /// The maximum number of entries.
    pub limit: usize,
}

/// A page of the audit log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AuditPage {
    /// The entries, latest first.
    pub entries: Vec<AuditEntry>,
    /// What [`AuditQuery::before`] is on the next page; none after the last one. A page may have
    /// few entries, or none, and still be followed by another: so many entries that do not match
    /// were looked at.
    pub next: Option<AuditId>,
}

/// Changes in the order in which they were appended. Entries are never changed.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait AuditLog: Send + Sync {
    /// Appends records, all or none of them, and returns the id of the last one. An id is higher
    /// than all that were returned before.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn append(&self, records: Vec<AuditRecord>) -> Result<AuditId, Fault>;

    /// Returns a page of the entries, latest first. It looks at a limited number of entries.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn entries(&self, query: AuditQuery) -> Result<AuditPage, Fault>;

    /// Removes the oldest entries, at most `batch_size`: those from before `earliest`, and those
    /// beyond the latest `most`. Returns how many were removed.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the store fails.
    async fn trim(&self, earliest: Time, most: u64, batch_size: usize) -> Result<usize, Fault>;
}
