//! The audit log on the embedded stores.

use super::{keys, store::Embedded, txn::Txn};
use crate::{
    domain::{
        audit::{AuditEntry, AuditId, AuditRecord},
        time::Time,
    },
    ports::{
        AuditLog, Fault,
        audit_log::{AuditPage, AuditQuery},
    },
};
use async_trait::async_trait;

/// How many pages of the store one request looks at: 10,000 entries.
const MAX_PAGES: usize = 10;
/// The counters: the id of the latest entry, and the number of entries.
const LAST: &str = "last_audit";
const COUNT: &str = "audit_entries";

fn append(txn: &mut Txn<'_>, records: Vec<AuditRecord>) -> Result<AuditId, Fault> {
    for record in records {
        let id = txn.add(keys::meta(LAST), 1)?.cast_signed();
        txn.add(keys::meta(COUNT), 1)?;
        txn.put(keys::audit_entry(id), &AuditEntry { id, record })?;
    }
    Ok(txn.number(&keys::meta(LAST))?.cast_signed())
}

fn trim(txn: &mut Txn<'_>, earliest: Time, most: u64, batch_size: usize) -> Result<usize, Fault> {
    let mut removed = 0;
    while removed < batch_size {
        // The keys sort the latest entry first.
        let Some(oldest) = txn.last_key(&keys::audit_entries())?.map(keys::Key) else {
            break;
        };
        let is_too_old = |entry: AuditEntry| entry.record.at < earliest;
        if txn.number(&keys::meta(COUNT))? <= most && !txn.get(&oldest)?.is_some_and(is_too_old) {
            break;
        }
        txn.delete(oldest);
        txn.add(keys::meta(COUNT), -1)?;
        removed += 1;
    }
    Ok(removed)
}

#[async_trait]
impl AuditLog for Embedded {
    #[tracing::instrument(
        name = "embedded.audit_log.append", level = "debug", skip_all,
        fields(records = records.len())
    )]
    async fn append(&self, records: Vec<AuditRecord>) -> Result<AuditId, Fault> {
        self.write("append to the audit log", move |txn, _| {
            append(txn, records)
        })
        .await
    }

    #[tracing::instrument(name = "embedded.audit_log.entries", level = "debug", skip_all)]
    async fn entries(&self, query: AuditQuery) -> Result<AuditPage, Fault> {
        let mut after = query.before.map(|id| keys::audit_entry(id).0);
        let mut page = AuditPage::default();
        for _ in 0..MAX_PAGES {
            let from = after.take();
            let (entries, next) = self
                .read("list audit entries", move |txn, _| {
                    txn.page::<AuditEntry>(&keys::audit_entries(), from)
                })
                .await?;
            page.next = entries.last().map(|entry| entry.id);
            for entry in entries {
                if !query.filter.matches(&entry.record) {
                    continue;
                }
                if page.entries.len() == query.limit {
                    page.next = page.entries.last().map(|last| last.id);
                    return Ok(page);
                }
                page.entries.push(entry);
            }
            if next.is_none() {
                page.next = None;
                return Ok(page);
            }
            after = next;
        }
        Ok(page)
    }

    #[tracing::instrument(name = "embedded.audit_log.trim", level = "debug", skip_all)]
    async fn trim(&self, earliest: Time, most: u64, batch_size: usize) -> Result<usize, Fault> {
        self.write("trim the audit log", move |txn, _| {
            trim(txn, earliest, most, batch_size)
        })
        .await
    }
}
