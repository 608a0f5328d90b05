//! Finished runs.

use super::{
    AppState,
    audit::{Audited, AuditedResult},
    error::{ApiError, map_not_found},
    extract::{AnyTypeJson, ApiResult, AppPath, AppQuery},
    page::PageQuery,
};
use crate::{
    adapters::wire::{BriefRunResponse, PublishStatusRequest, PublishStatusResponse, RunResponse},
    domain::{
        audit::{Action, Change},
        name::RunId,
        publish::PublishStatus,
    },
    services::ServiceError,
};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use utoipa::IntoParams;

/// The number of runs in a list when the client asks for none.
const DEFAULT_RUNS: usize = 100;
/// The maximum number of runs in a list.
const MAX_RUNS: usize = 1000;

/// Selects how much of a run is returned.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DetailQuery {
    /// `1`: everything that is stored of it.
    full: Option<u8>,
}

fn no_such_run(id: &RunId) -> impl FnOnce(ServiceError) -> ApiError {
    map_not_found(ApiError::text(
        StatusCode::NOT_FOUND,
        format!("no such run: {id}"),
    ))
}

/// Lists the latest runs, newest first.
#[utoipa::path(
    get,
    path = "/runs",
    tag = "runs",
    params(PageQuery),
    responses((status = 200, body = [RunResponse]))
)]
pub async fn list(
    State(app): State<Arc<AppState>>,
    AppQuery(page): AppQuery<PageQuery>,
) -> ApiResult<Vec<RunResponse>> {
    let runs = app
        .runs
        .latest(page.limit.unwrap_or(DEFAULT_RUNS).min(MAX_RUNS))
        .await?;
    Ok(Json(runs.iter().map(RunResponse::from).collect()))
}

/// Returns a finished run: {codebase, campaign, `publish_status`}, or all of it.
#[utoipa::path(
    get,
    path = "/runs/{run_id}",
    tag = "runs",
    params(("run_id" = String, Path), DetailQuery),
    responses(
        (status = 200, body = RunResponse),
        (status = 404, description = "text: no such run"),
    )
)]
pub async fn show(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<RunId>,
    AppQuery(detail): AppQuery<DetailQuery>,
) -> Result<Response, ApiError> {
    let run = app.runs.get(&id).await.map_err(no_such_run(&id))?;
    let full = detail.full.is_some_and(|full| full != 0);
    Ok(if full {
        Json(RunResponse::from(&run)).into_response()
    } else {
        Json(BriefRunResponse::from(&run)).into_response()
    })
}

/// Sets whether the result of a run is to be published.
#[utoipa::path(
    post,
    path = "/runs/{run_id}",
    tag = "runs",
    params(("run_id" = String, Path)),
    request_body = PublishStatusRequest,
    responses(
        (status = 200, body = PublishStatusResponse),
        (status = 404, description = "text"),
        (status = 422),
    )
)]
pub async fn update(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<RunId>,
    AnyTypeJson(body): AnyTypeJson<PublishStatusRequest>,
) -> AuditedResult<PublishStatusResponse> {
    let status = body.publish_status.parse()?;
    let before = app.runs.get(&id).await.map_err(no_such_run(&id))?;
    let run = app
        .runs
        .set_publish_status(&id, status)
        .await
        .map_err(no_such_run(&id))?;
    let state = |status: PublishStatus| json!({ "publish_status": status.to_string() });
    let change = Change::new(Action::SetPublishStatus, id.to_string())
        .before(state(before.publish_status))
        .after(state(run.publish_status));
    Ok(Audited(
        Json(PublishStatusResponse::from(&run)),
        vec![change],
    ))
}
