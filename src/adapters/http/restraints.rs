//! What somebody paused or limited, what is parked, and why an item is where it is.

use super::{
    AppState,
    error::ApiError,
    extract::{ApiResult, AppJson, AppPath, AppQuery},
};
use crate::adapters::wire::{
    ExplanationResponse, LimitRequest, LimitResponse, LimitsResponse, ParkedPageResponse,
    ParkedResponse, PauseRequest, PauseResponse, PausesResponse, UnparkRequest, UnparkedResponse,
};
use crate::domain::{pause::Scope, queue::QueueId};
use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// What is paused or limited.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ScopeQuery {
    /// One of all, campaign, host, codebase, bucket, worker.
    kind: String,
    /// Which one; not for all.
    name: Option<String>,
}

/// Which part of the parked items.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ParkedQuery {
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<QueueId>,
}

impl ScopeQuery {
    fn scope(&self) -> Result<Scope, ApiError> {
        Ok(Scope::parse(&self.kind, self.name.as_deref())?)
    }
}

/// What is paused now.
#[utoipa::path(get, path = "/pauses", tag = "restraints", responses((status = 200, body = PausesResponse)))]
pub async fn pauses(State(app): State<Arc<AppState>>) -> ApiResult<PausesResponse> {
    let pauses = app.restraints.pauses().await?;
    Ok(Json(PausesResponse {
        pauses: pauses.into_iter().map(PauseResponse::from).collect(),
    }))
}

/// Pauses a campaign, host, codebase, bucket, worker, or everything. What is paused keeps its place and is skipped; what runs goes on.
#[utoipa::path(put, path = "/pauses", tag = "restraints", request_body = PauseRequest, responses((status = 200, body = PauseResponse), (status = 422)))]
pub async fn pause(
    State(app): State<Arc<AppState>>,
    AppJson(body): AppJson<PauseRequest>,
) -> ApiResult<PauseResponse> {
    let (scope, reason, until) = body.parts()?;
    Ok(Json(
        app.restraints.pause(scope, reason, until).await?.into(),
    ))
}

/// Ends a pause.
#[utoipa::path(delete, path = "/pauses", tag = "restraints", params(ScopeQuery), responses((status = 204), (status = 404), (status = 422)))]
pub async fn resume(
    State(app): State<Arc<AppState>>,
    AppQuery(query): AppQuery<ScopeQuery>,
) -> Result<StatusCode, ApiError> {
    app.restraints.resume(&query.scope()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How many runs there may be at the same time.
#[utoipa::path(get, path = "/limits", tag = "restraints", responses((status = 200, body = LimitsResponse)))]
pub async fn limits(State(app): State<Arc<AppState>>) -> ApiResult<LimitsResponse> {
    let limits = app.restraints.limits().await?;
    Ok(Json(LimitsResponse {
        limits: limits.into_iter().map(LimitResponse::from).collect(),
    }))
}

/// Limits how many runs of a campaign, or on a host, there may be at the same time. What runs already goes on.
#[utoipa::path(put, path = "/limits", tag = "restraints", request_body = LimitRequest, responses((status = 200, body = LimitRequest), (status = 422)))]
pub async fn limit(
    State(app): State<Arc<AppState>>,
    AppJson(body): AppJson<LimitRequest>,
) -> ApiResult<LimitRequest> {
    let limit = app.restraints.limit(body.limit()?).await?;
    Ok(Json(limit.into()))
}

/// Takes a limit away.
#[utoipa::path(delete, path = "/limits", tag = "restraints", params(ScopeQuery), responses((status = 204), (status = 404), (status = 422)))]
pub async fn unlimit(
    State(app): State<Arc<AppState>>,
    AppQuery(query): AppQuery<ScopeQuery>,
) -> Result<StatusCode, ApiError> {
    app.restraints.unlimit(&query.scope()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Items whose runs failed too often, which wait for somebody to release them.
#[utoipa::path(get, path = "/parked", tag = "restraints", params(ParkedQuery), responses((status = 200, body = ParkedPageResponse)))]
pub async fn parked(
    State(app): State<Arc<AppState>>,
    AppQuery(query): AppQuery<ParkedQuery>,
) -> ApiResult<ParkedPageResponse> {
    let (page, next) = app
        .parked
        .list(
            query.cursor,
            query.limit.unwrap_or(PAGE).clamp(1, LARGEST_PAGE),
        )
        .await?;
    Ok(Json(ParkedPageResponse {
        parked: page.into_iter().map(ParkedResponse::from).collect(),
        next,
    }))
}

/// Releases parked (and snoozed) items: some by id, or all parked ones of a campaign, a codebase, or with `all`.
#[utoipa::path(post, path = "/parked/unpark", tag = "restraints", request_body = UnparkRequest, responses((status = 200, body = UnparkedResponse), (status = 422)))]
pub async fn release(
    State(app): State<Arc<AppState>>,
    AppJson(body): AppJson<UnparkRequest>,
) -> ApiResult<UnparkedResponse> {
    let unparked = app.parked.release(body.which()?).await?;
    Ok(Json(UnparkedResponse { unparked }))
}

/// Why an item is where it is in the queue, and what keeps it from being handed out.
#[utoipa::path(get, path = "/queue/{queue_id}/explain", tag = "queue", params(("queue_id" = i64, Path)),
    responses((status = 200, body = ExplanationResponse), (status = 404)))]
pub async fn explain(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<QueueId>,
) -> ApiResult<ExplanationResponse> {
    Ok(Json(app.explainer.explain(id).await?.into()))
}
