//! Finished runs.

use super::{
    AppState,
    error::{ApiError, map_not_found},
    extract::{ApiResult, AppJson, AppPath, AppQuery},
    queue::PageQuery,
};
use crate::adapters::wire::{PublishStatusResponse, RunResponse};
use crate::{
    domain::{name::RunId, run::Run},
    services::ServiceError,
};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

const MOST_RUNS: usize = 1000;

/// How much of a run is shown.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Detail {
    /// `1`: every stored fact.
    full: Option<u8>,
}

/// A decision about a run.
#[derive(Debug, Deserialize, ToSchema)]
pub struct PublishStatusRequest {
    /// One of unknown, blocked, needs-manual-review, rejected, approved, ignored.
    publish_status: String,
}

fn no_such_run(id: &RunId) -> impl FnOnce(ServiceError) -> ApiError {
    map_not_found(ApiError::text(
        StatusCode::NOT_FOUND,
        format!("no such run: {id}"),
    ))
}

fn brief(run: &Run) -> Value {
    json!({ "codebase": run.codebase, "campaign": run.campaign, "publish_status": run.publish_status })
}

/// The latest runs, newest first.
#[utoipa::path(get, path = "/runs", tag = "runs", params(PageQuery), responses((status = 200, body = [RunResponse])))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    AppQuery(limit): AppQuery<PageQuery>,
) -> ApiResult<Vec<RunResponse>> {
    let runs = app
        .runs
        .latest(limit.limit.unwrap_or(100).min(MOST_RUNS))
        .await?;
    Ok(Json(runs.iter().map(RunResponse::from).collect()))
}

/// A finished run: {codebase, campaign, `publish_status`}, or all of it.
#[utoipa::path(get, path = "/runs/{run_id}", tag = "runs", params(("run_id" = String, Path), Detail),
    responses((status = 200, body = RunResponse), (status = 404, description = "text: no such run")))]
pub async fn show(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<RunId>,
    AppQuery(detail): AppQuery<Detail>,
) -> Result<Response, ApiError> {
    let run = app.runs.get(&id).await.map_err(no_such_run(&id))?;
    let full = detail.full.is_some_and(|full| full != 0);
    Ok(if full {
        Json(RunResponse::from(&run)).into_response()
    } else {
        Json(brief(&run)).into_response()
    })
}

/// Notes whether a run's result is to be published.
#[utoipa::path(post, path = "/runs/{run_id}", tag = "runs", params(("run_id" = String, Path)), request_body = PublishStatusRequest,
    responses((status = 200, body = PublishStatusResponse), (status = 404, description = "text"), (status = 422)))]
pub async fn update(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<RunId>,
    AppJson(body): AppJson<PublishStatusRequest>,
) -> ApiResult<PublishStatusResponse> {
    let status = body.publish_status.parse()?;
    let run = app
        .runs
        .set_publish_status(&id, status)
        .await
        .map_err(no_such_run(&id))?;
    Ok(Json(PublishStatusResponse::from(&run)))
}
