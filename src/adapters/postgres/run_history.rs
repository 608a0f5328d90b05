//! What runs resumed from, in `run`.

use super::{Postgres, records::row_limit};
use crate::{
    domain::{
        name::{CampaignName, CodebaseName, RunId},
        run::ResultCode,
        schedule::Pair,
    },
    ports::{
        Fault, RunHistory,
        run_history::{RunLink, RunLinks},
    },
};
use async_trait::async_trait;
use chrono::NaiveDateTime;

/// A row of `list_run_links.sql` and `find_run_link.sql`.
type LinkRow = (
    String,
    Option<String>,
    Option<String>,
    String,
    Option<NaiveDateTime>,
    Option<String>,
);

/// Returns the link of a row; `None` for a run that is no finished run of ours in any sense: other
/// services may have stored one without a codebase or a start.
fn link((id, codebase, campaign, code, start, from): LinkRow) -> Option<RunLink> {
    Some(RunLink {
        id: RunId::new(id),
        codebase: CodebaseName::new(codebase?).ok()?,
        campaign: CampaignName::new(campaign?).ok()?,
        code: ResultCode::new(code),
        start_time: start?.and_utc(),
        resume_from: from.map(RunId::new),
    })
}

#[async_trait]
impl RunHistory for Postgres {
    #[tracing::instrument(
        level = "debug", name = "postgres.run_history.resumed_from", skip_all, fields(run.id = %id)
    )]
    async fn resumed_from(
        &self,
        pair: &Pair,
        id: &RunId,
        after: Option<RunLink>,
        limit: usize,
    ) -> Result<Vec<RunId>, Fault> {
        let query = sqlx::query_scalar(include_str!("sql/list_descendants.sql"))
            .bind(pair.codebase.to_string())
            .bind(pair.campaign.to_string())
            .bind(id.to_string())
            .bind(row_limit(limit))
            .bind(after.as_ref().map(|run| run.start_time.naive_utc()))
            .bind(after.map(|run| run.id.to_string()));
        let action = "list the runs that resumed from a run";
        let ids: Vec<String> = self
            .tables
            .read(action, |connection| Box::pin(query.fetch_all(connection)))
            .await?;
        Ok(ids.into_iter().map(RunId::new).collect())
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.run_history.link", skip_all, fields(run.id = %id)
    )]
    async fn link(&self, id: &RunId) -> Result<Option<RunLink>, Fault> {
        let query = sqlx::query_as(include_str!("sql/find_run_link.sql")).bind(id.to_string());
        let action = "look up what a run resumed from";
        let row: Option<LinkRow> = self
            .tables
            .read(action, |connection| {
                Box::pin(query.fetch_optional(connection))
            })
            .await?;
        Ok(row.and_then(link))
    }

    #[tracing::instrument(
        level = "debug", name = "postgres.run_history.links_after", skip_all, fields(run.id = %id)
    )]
    async fn links_after(&self, id: &RunId, limit: usize) -> Result<RunLinks, Fault> {
        let query = sqlx::query_as(include_str!("sql/list_run_links.sql"))
            .bind(id.to_string())
            .bind(row_limit(limit));
        let action = "list what runs resumed from";
        let rows: Vec<LinkRow> = self
            .tables
            .read(action, |connection| Box::pin(query.fetch_all(connection)))
            .await?;
        let last = rows.last().map(|(id, ..)| RunId::new(id.clone()));
        Ok(RunLinks {
            next: last.filter(|_| rows.len() >= limit),
            links: rows.into_iter().filter_map(link).collect(),
        })
    }

    #[tracing::instrument(level = "debug", name = "postgres.run_history.codebase_at", skip_all)]
    async fn codebase_at(&self, branch_url: &str) -> Result<Option<CodebaseName>, Fault> {
        let query = sqlx::query_scalar(
            "SELECT name FROM codebase WHERE branch_url = $1 AND name IS NOT NULL LIMIT 1",
        )
        .bind(branch_url.to_owned());
        let action = "look up a codebase by its branch";
        let name: Option<String> = self
            .tables
            .read(action, |connection| {
                Box::pin(query.fetch_optional(connection))
            })
            .await?;
        Ok(name.and_then(|name| CodebaseName::new(name).ok()))
    }
}
