//! What runs resumed from, and whether a run would.

use super::{
    AppState,
    audit::{Audited, AuditedResult},
    error::ApiError,
    extract::{AnyTypeJson, ApiResult, AppPath, AppQuery},
};
use crate::{
    adapters::wire::{
        ResumeChainResponse, ResumeCheckRequest, ResumeCheckResponse, ResumeDescendantsResponse,
        ResumeValidationResponse,
    },
    domain::{
        Invalid,
        name::{CampaignName, CodebaseName, RunId},
    },
    services::resumes::CheckSubject,
};
use axum::{Json, extract::State};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// How many runs a page of a validation looks at by default.
const DEFAULT_PAGE: usize = 100;

/// Selects the runs that are checked.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ValidationQuery {
    /// Only runs of this campaign.
    campaign: Option<String>,
    /// How many runs to look at, at most 1000, whatever their campaign; 100 by default.
    limit: Option<usize>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// Selects a page of runs.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RunPageQuery {
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// Checks whether a run would resume from an earlier one. Looks as an assignment would, and changes
/// nothing.
#[utoipa::path(
    post,
    path = "/resume/check",
    tag = "runs",
    request_body = ResumeCheckRequest,
    responses((status = 200, body = ResumeCheckResponse), (status = 404), (status = 422))
)]
pub async fn check(
    State(app): State<Arc<AppState>>,
    AnyTypeJson(body): AnyTypeJson<ResumeCheckRequest>,
) -> AuditedResult<ResumeCheckResponse> {
    let campaign = CampaignName::new(body.campaign)?;
    let subject = match (body.codebase, body.branch_url) {
        (Some(name), _) => CheckSubject::Codebase(CodebaseName::new(name)?),
        (None, Some(url)) => CheckSubject::BranchUrl(url),
        (None, None) => {
            return Err(Invalid::new("codebase", "codebase or branch_url is required").into());
        }
    };
    let resumable = app.resumes.check(&campaign, subject).await?;
    Ok(Audited(Json(resumable.into()), vec![]))
}

/// Returns the runs that a run resumed from, the nearest first: at most 100 on a page, and about 16
/// MiB.
#[utoipa::path(
    get,
    path = "/resume/chain/{run_id}",
    tag = "runs",
    params(("run_id" = String, Path), RunPageQuery),
    responses((status = 200, body = ResumeChainResponse), (status = 404), (status = 422))
)]
pub async fn chain(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<RunId>,
    AppQuery(query): AppQuery<RunPageQuery>,
) -> ApiResult<ResumeChainResponse> {
    let cursor = query.cursor.map(RunId::new);
    let page = app.resumes.chain(&id, cursor).await?;
    Ok(Json(ResumeChainResponse::new(&id, page)))
}

/// Returns the runs that resumed from a run, the oldest first: at most 100 on a page, and about 16
/// MiB.
#[utoipa::path(
    get,
    path = "/resume/descendants/{run_id}",
    tag = "runs",
    params(("run_id" = String, Path), RunPageQuery),
    responses((status = 200, body = ResumeDescendantsResponse), (status = 404), (status = 422))
)]
pub async fn descendants(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<RunId>,
    AppQuery(query): AppQuery<RunPageQuery>,
) -> ApiResult<ResumeDescendantsResponse> {
    let cursor = query.cursor.map(RunId::new);
    let page = app.resumes.descendants(&id, cursor).await?;
    Ok(Json(ResumeDescendantsResponse::new(&id, page)))
}

/// Checks what runs say that they resumed from, page by page.
#[utoipa::path(
    get,
    path = "/resume/validate",
    tag = "runs",
    params(ValidationQuery),
    responses((status = 200, body = ResumeValidationResponse), (status = 422))
)]
pub async fn validate(
    State(app): State<Arc<AppState>>,
    AppQuery(query): AppQuery<ValidationQuery>,
) -> Result<Json<ResumeValidationResponse>, ApiError> {
    let campaign = query.campaign.map(CampaignName::new).transpose()?;
    let cursor = RunId::new(query.cursor.unwrap_or_default());
    let limit = query.limit.unwrap_or(DEFAULT_PAGE);
    let page = app
        .resumes
        .validate(campaign.as_ref(), limit, &cursor)
        .await?;
    Ok(Json(page.into()))
}
