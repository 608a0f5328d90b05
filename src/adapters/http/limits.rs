//! Concurrency limits.

use super::{
    AppState,
    audit::{Audited, AuditedResult},
    error::ApiError,
    extract::{ApiResult, AppJson, AppPath, AppQuery},
    pauses::{ScopeQuery, object},
};
use crate::{
    adapters::wire::{LimitRequest, LimitResponse, LimitsResponse},
    domain::{
        audit::{Action, Change},
        pause::{ConcurrencyLimit, Scope},
    },
};
use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// Returns a limit as the audit log has it.
fn state(limit: &ConcurrencyLimit) -> Value {
    json!({ "most": limit.most })
}

/// Returns the limit that a scope has, for the audit log.
async fn earlier(app: &AppState, scope: &Scope) -> Result<Option<Value>, ApiError> {
    let limits = app.limits.list().await?;
    let found = limits.iter().find(|usage| usage.limit.scope == *scope);
    Ok(found.map(|usage| state(&usage.limit)))
}

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
) -> AuditedResult<LimitRequest> {
    let limit = body.limit()?;
    let before = earlier(&app, &limit.scope).await?;
    let limit = app.limits.set(limit).await?;
    let change = Change::new(Action::SetLimit, object(&limit.scope))
        .before(before)
        .after(state(&limit));
    Ok(Audited(Json(limit.into()), vec![change]))
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
) -> Result<Audited<StatusCode>, ApiError> {
    let scope = query.scope()?;
    let before = earlier(&app, &scope).await?;
    app.limits.remove(&scope).await?;
    let change = Change::new(Action::RemoveLimit, object(&scope)).before(before);
    Ok(Audited(StatusCode::NO_CONTENT, vec![change]))
}

/// Ends the backoff of a host that limited the rate of requests.
#[utoipa::path(
    delete,
    path = "/limits/hosts/{host}",
    tag = "limits",
    params(("host" = String, Path)),
    responses((status = 204), (status = 404))
)]
pub async fn end_backoff(
    State(app): State<Arc<AppState>>,
    AppPath(host): AppPath<String>,
) -> Result<Audited<StatusCode>, ApiError> {
    app.limits.end_backoff(&host).await?;
    let change = Change::new(Action::EndBackoff, host);
    Ok(Audited(StatusCode::NO_CONTENT, vec![change]))
}
