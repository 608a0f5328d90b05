//! Results that come after their run was abandoned.

use super::{refresh_summaries, rows, store_error};
use crate::{
    adapters::postgres::Tables,
    domain::retry::{Disposition, ItemState},
    ports::{
        Fault, RunStoreError,
        run_recorder::{LateOutcome, LateRun, NewRun},
    },
};
use sqlx::PgConnection;

/// Makes a late result a row. It has no claim, so the fields about that do not matter.
fn new_run(late: LateRun) -> NewRun {
    NewRun {
        run: late.run,
        token: String::new(),
        now: late.now,
        disposition: Disposition::Complete,
        unless_seen_after: None,
        worker_at_fault: None,
        counted_name: None,
    }
}

/// Puts a late result in the place of the run of its id. `None` when no such run is there, or it
/// was not abandoned.
async fn replace(connection: &mut PgConnection, new: &NewRun) -> sqlx::Result<Option<LateOutcome>> {
    let run = &new.run;
    // The item is locked first, as everywhere; nobody can claim it until the run is replaced.
    sqlx::query("SELECT FROM queue WHERE id = $1 FOR UPDATE")
        .bind(run.queue_id)
        .execute(&mut *connection)
        .await?;
    let state: Option<(bool, bool)> = sqlx::query_as(include_str!("../sql/find_late_state.sql"))
        .bind(run.id.as_str())
        .bind(run.codebase.as_str())
        .bind(run.campaign.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let Some((true, run_again)) = state else {
        return Ok(None);
    };
    // An item that was claimed again meanwhile belongs to another run, and stays.
    let disposition = if run_again {
        Disposition::Requeue(ItemState::default())
    } else {
        Disposition::Complete
    };
    let new = &NewRun {
        disposition,
        ..new.clone()
    };
    for delete in [
        "DELETE FROM new_result_branch WHERE run_id = $1",
        "DELETE FROM debian_build WHERE run_id = $1",
    ] {
        sqlx::query(delete)
            .bind(run.id.as_str())
            .execute(&mut *connection)
            .await?;
    }
    sqlx::query(include_str!("../sql/replace_run.sql"))
        .bind(rows::document([new]))
        .execute(&mut *connection)
        .await?;
    refresh_summaries(connection, std::slice::from_ref(new)).await?;
    Ok(Some(if run_again {
        LateOutcome::ReplacedButRequeued
    } else {
        LateOutcome::Replaced
    }))
}

impl Tables {
    /// Stores a late result in the place of the run that was abandoned.
    pub(super) async fn record_late(&self, late: LateRun) -> Result<LateOutcome, RunStoreError> {
        self.check_worker(&late.run).await?;
        let new = new_run(late);
        let replaced = self.transaction::<_, Fault>("store a late run", |connection| {
            let new = new.clone();
            Box::pin(async move { Ok(replace(connection, &new).await?) })
        });
        match replaced.await.map_err(store_error)? {
            Some(outcome) => Ok(outcome),
            None => match self.find_run(&new.run.id).await? {
                Some(known) => Ok(LateOutcome::NotGivenUp(Box::new(known))),
                None => Err(RunStoreError::ClaimLost(new.run.id)),
            },
        }
    }
}
