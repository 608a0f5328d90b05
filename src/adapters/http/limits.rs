//! Concurrency limits.

use super::{
    AppState,
    error::ApiError,
    extract::{ApiResult, AppJson, AppQuery},
    pauses::ScopeQuery,
};
use crate::adapters::wire::{LimitRequest, LimitResponse, LimitsResponse};
use axum::{Json, extract::State, http::StatusCode};
use std::sync::Arc;

/// Lists the concurrency limits, with how much of each is used.
#[utoipa::path(
    get,
    path = "/limits",
    tag = "limits",
    responses((status = 200, body = LimitsResponse))
)]
pub async fn list(State(app): State<Arc<AppState>>) -> ApiResult<LimitsResponse> {
    let limits = app.limits.list().await?;
    Ok(Json(LimitsResponse {
        limits: limits.into_iter().map(LimitResponse::from).collect(),
    }))
}

/// Limits the number of concurrent runs of a campaign, or on a host. Active runs go on.
#[utoipa::path(
    put,
    path = "/limits",
    tag = "limits",
    request_body = LimitRequest,
    responses((status = 200, body = LimitRequest), (status = 422))
)]
pub async fn set(
    State(app): State<Arc<AppState>>,
    AppJson(body): AppJson<LimitRequest>,
) -> ApiResult<LimitRequest> {
    Ok(Json(app.limits.set(body.limit()?).await?.into()))
}

/// Removes a concurrency limit.
#[utoipa::path(
    delete,
    path = "/limits",
    tag = "limits",
    params(ScopeQuery),
    responses((status = 204), (status = 404), (status = 422))
)]
pub async fn remove(
    State(app): State<Arc<AppState>>,
    AppQuery(query): AppQuery<ScopeQuery>,
) -> Result<StatusCode, ApiError> {
    app.limits.remove(&query.scope()?).await?;
    Ok(StatusCode::NO_CONTENT)
}
