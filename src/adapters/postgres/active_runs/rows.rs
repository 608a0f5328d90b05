//! Rows of `runner_active_run`.

use crate::{
    adapters::postgres::records::read,
    domain::{
        active_run::{ActiveRun, Claimant},
        name::RunId,
    },
};
use chrono::NaiveDateTime;
use sqlx::{Row, postgres::PgRow};

/// Reads an active run from the columns that the statements of `sql/*_active_run*.sql` return.
pub(super) fn active_run(row: &PgRow) -> sqlx::Result<ActiveRun> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let time = |column: &str| {
        row.try_get::<NaiveDateTime, _>(column)
            .map(|time| time.and_utc())
    };
    Ok(ActiveRun {
        id: RunId::new(text("run_id")?),
        token: text("token")?,
        item: read(&text("item")?)?,
        claimant: read::<Claimant>(&text("claimant")?)?,
        start_time: time("start_time")?,
        keepalive: time("keepalive")?,
        vcs: read(&text("vcs")?)?,
        resume_from: row
            .try_get::<Option<String>, _>("resume_from")?
            .map(RunId::new),
        host: row.try_get("host")?,
        lease_until: row
            .try_get::<Option<NaiveDateTime>, _>("lease_until")?
            .map(|time| time.and_utc()),
        cancel: row.try_get("cancel")?,
        failures: u32::try_from(row.try_get::<i32, _>("failures")?).unwrap_or_default(),
    })
}
