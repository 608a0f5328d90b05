//! Pauses.

use super::{
    AppState,
    error::ApiError,
    extract::{ApiResult, AppJson, AppQuery},
};
use crate::{
    adapters::wire::{PauseRequest, PauseResponse, PausesResponse},
    domain::pause::Scope,
};
use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// Names what is paused or limited.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ScopeQuery {
    /// One of all, campaign, host, codebase, bucket, worker.
    kind: String,
    /// The name of the campaign, host or so; absent for all.
    name: Option<String>,
}

impl ScopeQuery {
    /// Returns the scope.
    ///
    /// # Errors
    ///
    /// 422 when it is not valid.
    pub fn scope(&self) -> Result<Scope, ApiError> {
        Ok(Scope::parse(&self.kind, self.name.as_deref())?)
    }
}

/// Lists the pauses that hold now.
#[utoipa::path(
    get,
    path = "/pauses",
    tag = "pauses",
    responses((status = 200, body = PausesResponse))
)]
pub async fn list(State(app): State<Arc<AppState>>) -> ApiResult<PausesResponse> {
    let pauses = app.pauses.list().await?;
    Ok(Json(PausesResponse {
        pauses: pauses.into_iter().map(PauseResponse::from).collect(),
    }))
}

/// Pauses a campaign, host, codebase, bucket, worker, or everything.
///
/// Paused items keep their position in the queue and are skipped. Active runs go on.
#[utoipa::path(
    put,
    path = "/pauses",
    tag = "pauses",
    request_body = PauseRequest,
    responses((status = 200, body = PauseResponse), (status = 422))
)]
pub async fn pause(
    State(app): State<Arc<AppState>>,
    AppJson(body): AppJson<PauseRequest>,
) -> ApiResult<PauseResponse> {
    let (scope, reason, until) = body.parts()?;
    Ok(Json(app.pauses.pause(scope, reason, until).await?.into()))
}

/// Ends a pause.
#[utoipa::path(
    delete,
    path = "/pauses",
    tag = "pauses",
    params(ScopeQuery),
    responses((status = 204), (status = 404), (status = 422))
)]
pub async fn unpause(
    State(app): State<Arc<AppState>>,
    AppQuery(query): AppQuery<ScopeQuery>,
) -> Result<StatusCode, ApiError> {
    app.pauses.unpause(&query.scope()?).await?;
    Ok(StatusCode::NO_CONTENT)
}
