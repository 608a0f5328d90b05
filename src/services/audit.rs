//! The audit log: records what was changed, lists it, and removes what is too old.

use super::{ServiceError, leadership::Leader};
use crate::{
    domain::audit::{Actor, AuditRecord, AuditRetention, Change},
    metrics::Metrics,
    ports::{
        AuditLog, Clock, ErrorChain,
        audit_log::{AuditPage, AuditQuery},
    },
};
use chrono::TimeDelta;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;

/// How often old entries are looked for.
const TRIM_INTERVAL: Duration = Duration::from_secs(600);
/// How often a process that does not lead looks whether it leads now.
const FOLLOWER_INTERVAL: Duration = Duration::from_secs(5);
/// How many entries are removed in one step, so that none keeps others waiting.
const BATCH_SIZE: usize = 500;
/// How often an entry is tried to be appended.
const MAX_ATTEMPTS: u32 = 3;
/// The delay between two attempts.
const RETRY_DELAY: Duration = Duration::from_millis(200);

/// Keeps the audit log.
pub struct Audit {
    /// Where it is kept.
    pub log: Arc<dyn AuditLog>,
    /// The source of the time.
    pub clock: Arc<dyn Clock>,
    /// Whether this process removes old entries.
    pub leader: Arc<Leader>,
    /// Counts entries that are lost.
    pub metrics: Arc<Metrics>,
    /// How much is kept.
    pub retention: AuditRetention,
}

impl Audit {
    /// Records changes that were made. The changes stand even when they cannot be recorded: that is
    /// logged as an error, with what was changed, and counted.
    #[tracing::instrument(name = "services.audit.record", level = "debug", skip_all)]
    pub async fn record(&self, actor: &Actor, changes: Vec<Change>) {
        let now = self.clock.now();
        let records: Vec<AuditRecord> = changes
            .into_iter()
            .map(|change| AuditRecord::new(change, actor, now))
            .collect();
        for attempt in 1.. {
            let Err(error) = self.log.append(records.clone()).await else {
                return;
            };
            if attempt < MAX_ATTEMPTS && error.is_unavailable() {
                sleep(RETRY_DELAY).await;
                continue;
            }
            self.metrics.failed("store", "audit");
            for record in &records {
                tracing::error!(
                    error = %ErrorChain(&error),
                    who = record.who,
                    action = record.action,
                    object = record.object,
                    request.id = record.request_id,
                    "a change is not in the audit log"
                );
            }
            return;
        }
    }

    /// Returns a page of the entries, latest first.
    ///
    /// # Errors
    ///
    /// When the store fails.
    #[tracing::instrument(name = "services.audit.entries", skip_all)]
    pub async fn entries(&self, query: AuditQuery) -> Result<AuditPage, ServiceError> {
        Ok(self.log.entries(query).await?)
    }

    /// Removes what is too old or too much, in small steps.
    ///
    /// # Errors
    ///
    /// When the store fails; what was removed before stays removed.
    pub async fn trim(&self) -> Result<usize, ServiceError> {
        let earliest = self.clock.now() - TimeDelta::days(self.retention.days.into());
        let mut removed = 0;
        loop {
            let batch = self
                .log
                .trim(earliest, self.retention.entries, BATCH_SIZE)
                .await?;
            removed += batch;
            if batch < BATCH_SIZE {
                return Ok(removed);
            }
        }
    }

    /// Removes old entries for ever, while this process leads.
    pub async fn run(&self) {
        loop {
            if !self.leader.leads() {
                sleep(FOLLOWER_INTERVAL).await;
                continue;
            }
            if let Err(error) = self.trim().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "old entries of the audit log cannot be removed"
                );
            }
            sleep(TRIM_INTERVAL).await;
        }
    }
}
