//! Pauses.

use super::{
    AppState,
    audit::{Audited, AuditedResult},
    error::ApiError,
    extract::{ApiResult, AppJson, AppQuery},
};
use crate::{
    adapters::wire::{PauseRequest, PauseResponse, PausesResponse},
    domain::{
        audit::{Action, Change},
        pause::{Pause, Scope},
    },
};
use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
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

/// Returns the name of a scope in the audit log.
pub fn object(scope: &Scope) -> String {
    format!("{} {}", scope.kind(), scope.name())
        .trim_end()
        .to_owned()
}

/// Returns a pause as the audit log has it.
fn state(pause: &Pause) -> Value {
    json!(PauseResponse::from(pause.clone()))
}

/// Returns the pause that a scope has, for the audit log.
async fn earlier(app: &AppState, scope: &Scope) -> Result<Option<Value>, ApiError> {
    let pauses = app.pauses.list().await?;
    Ok(pauses.iter().find(|pause| pause.scope == *scope).map(state))
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
) -> AuditedResult<PauseResponse> {
    let (scope, reason, until) = body.parts()?;
    let before = earlier(&app, &scope).await?;
    let pause = app.pauses.pause(scope, reason, until).await?;
    let change = Change::new(Action::Pause, object(&pause.scope))
        .before(before)
        .after(state(&pause));
    Ok(Audited(Json(pause.into()), vec![change]))
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
) -> Result<Audited<StatusCode>, ApiError> {
    let scope = query.scope()?;
    let before = earlier(&app, &scope).await?;
    app.pauses.unpause(&scope).await?;
    let change = Change::new(Action::Unpause, object(&scope)).before(before);
    Ok(Audited(StatusCode::NO_CONTENT, vec![change]))
}
