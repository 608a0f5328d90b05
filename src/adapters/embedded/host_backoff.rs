//! Host backoffs on the embedded stores.

use super::{keys, records::Moment, store::Embedded};
use crate::{
    domain::time::Time,
    ports::{Fault, HostBackoffs, host_backoff::HostBackoff},
};
use async_trait::async_trait;
use chrono::TimeDelta;

/// How long a backoff that has ended is kept.
const KEPT: TimeDelta = TimeDelta::days(1);
/// How many of those are removed at a time.
const MAX_REMOVED: usize = 100;

#[async_trait]
impl HostBackoffs for Embedded {
    #[tracing::instrument(
        name = "embedded.host_backoff.back_off_host", level = "debug", skip_all,
        fields(host = %backoff.host)
    )]
    async fn back_off_host(&self, backoff: HostBackoff) -> Result<(), Fault> {
        self.write("back off a host", move |txn, index| {
            let until = index
                .host_backoff(&backoff.host)
                .map_or(backoff.until, |earlier| earlier.max(backoff.until));
            for ended in index.ended_backoffs(backoff.until - KEPT, MAX_REMOVED) {
                txn.delete(keys::host(&ended));
                index.set_host_backoff(ended, None);
            }
            txn.put(keys::host(&backoff.host), &Moment(until))?;
            index.set_host_backoff(backoff.host, Some(until));
            Ok(())
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.host_backoff.end_backoff",
        level = "debug",
        skip_all,
        fields(host)
    )]
    async fn end_backoff(&self, host: &str) -> Result<bool, Fault> {
        let host = host.to_owned();
        self.write("end the backoff of a host", move |txn, index| {
            let was_known = index.host_backoff(&host).is_some();
            txn.delete(keys::host(&host));
            index.set_host_backoff(host, None);
            Ok(was_known)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.host_backoff.backed_off_hosts",
        level = "debug",
        skip_all
    )]
    async fn backed_off_hosts(&self, now: Time) -> Result<Vec<HostBackoff>, Fault> {
        self.read_index(move |index| index.backed_off_hosts(now))
            .await
    }
}
