//! The statements that select the next items of the queue: to claim them, or to return one.

use super::{
    records::{KeyColumns, row_limit},
    scan_cursor::QueuePosition,
};
use crate::{
    domain::{
        name::{CampaignName, CodebaseName},
        time::Time,
    },
    ports::queue_store::ClaimFilter,
};
use sqlx::{Postgres, postgres::PgArguments, query::Query};

/// A statement with its parameters.
pub(super) type Statement<'q> = Query<'q, Postgres, PgArguments>;

/// What a statement that selects the next items needs beside the filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scan {
    /// Maximum number of items.
    pub(super) limit: usize,
    /// The time at which pauses, backoffs and snoozes must have passed.
    pub(super) now: Time,
    /// Only items after this position are selected.
    pub(super) after: QueuePosition,
    /// Whether the statement runs alone among all processes, so that it can keep limits.
    pub(super) exclusive: bool,
}

fn bind<'q>(sql: &'static str, filter: &'q ClaimFilter, scan: Scan) -> Statement<'q> {
    let except = KeyColumns::from_iter(&filter.except);
    let (bucket, priority, id) = scan.after;
    sqlx::query(sql)
        .bind(row_limit(scan.limit))
        .bind(scan.now.naive_utc())
        .bind(&filter.avoid_hosts)
        .bind(filter.campaign.as_ref().map(CampaignName::as_str))
        .bind(except.codebases)
        .bind(except.campaigns)
        .bind(except.change_sets)
        .bind(filter.codebase.as_ref().map(CodebaseName::as_str))
        .bind(bucket.as_str())
        .bind(priority)
        .bind(id)
        .bind(scan.exclusive)
}

/// Returns the statement that claims items; the requests are still to be bound.
pub(super) fn claim(filter: &ClaimFilter, scan: Scan) -> Statement<'_> {
    let sql = match filter.codebase {
        Some(_) => include_str!("sql/claim_next_of_codebase.sql"),
        None => include_str!("sql/claim_next.sql"),
    };
    bind(sql, filter, scan)
}

/// Returns the statement that returns the next item.
pub(super) fn peek(filter: &ClaimFilter, scan: Scan) -> Statement<'_> {
    let sql = match filter.codebase {
        Some(_) => include_str!("sql/peek_next_of_codebase.sql"),
        None => include_str!("sql/peek_next.sql"),
    };
    bind(sql, filter, scan)
}
