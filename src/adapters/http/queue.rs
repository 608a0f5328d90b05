//! The queue: looking at it, and queueing by hand.

use super::{
    AppState,
    error::{ApiError, map_not_found},
    extract::{ApiResult, AppJson, AppQuery},
};
use crate::adapters::wire::{
    BulkResponse, PositionResponse, QueueItemResponse, QueueStatsResponse, ScheduleResponse,
    ScheduleRunRequest, StatusResponse,
};
use crate::domain::{
    name::{CampaignName, CodebaseName},
    schedule::Pair,
};
use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// Bounds a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// At most so many.
    pub limit: Option<usize>,
}

/// Names a pair.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PairQuery {
    codebase: String,
    campaign: String,
}

/// What runs now.
#[utoipa::path(get, path = "/status", tag = "queue", responses((status = 200, body = StatusResponse)))]
pub async fn status(State(app): State<Arc<AppState>>) -> ApiResult<StatusResponse> {
    Ok(Json(app.status_shape().await?))
}

/// The queue, in order.
#[utoipa::path(get, path = "/queue", tag = "queue", params(PageQuery), responses((status = 200, body = [QueueItemResponse])))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    AppQuery(limit): AppQuery<PageQuery>,
) -> ApiResult<Vec<QueueItemResponse>> {
    let items = app
        .overview
        .queue(limit.limit.unwrap_or(usize::MAX))
        .await?;
    Ok(Json(items.into_iter().map(Into::into).collect()))
}

/// Where a pair stands; nulls when it is not queued.
#[utoipa::path(get, path = "/queue/position", tag = "queue", params(PairQuery), responses((status = 200, body = PositionResponse)))]
pub async fn position(
    State(app): State<Arc<AppState>>,
    AppQuery(pair): AppQuery<PairQuery>,
) -> ApiResult<PositionResponse> {
    let pair = Pair {
        codebase: CodebaseName::new(pair.codebase)?,
        campaign: CampaignName::new(pair.campaign)?,
    };
    Ok(Json(app.overview.position(&pair).await?.into()))
}

/// Figures about the queue.
#[utoipa::path(get, path = "/queue/stats", tag = "queue", responses((status = 200, body = QueueStatsResponse)))]
pub async fn stats(State(app): State<Arc<AppState>>) -> ApiResult<QueueStatsResponse> {
    Ok(Json(QueueStatsResponse::new(
        app.overview.figures().await?,
        true,
    )))
}

/// Figures about the queue, without names.
#[utoipa::path(get, path = "/queue/stats", tag = "workers", responses((status = 200, body = QueueStatsResponse)))]
pub async fn stats_public(State(app): State<Arc<AppState>>) -> ApiResult<QueueStatsResponse> {
    Ok(Json(QueueStatsResponse::new(
        app.overview.figures().await?,
        false,
    )))
}

fn run_not_found() -> ApiError {
    ApiError::reason(StatusCode::NOT_FOUND, "Run not found")
}

/// Queues a run of a pair, or of what an earlier run was of.
#[utoipa::path(post, path = "/schedule", tag = "queue", request_body = ScheduleRunRequest,
    responses((status = 200, body = ScheduleResponse), (status = 400, description = "text: no command"), (status = 404, description = "{reason}"), (status = 422)))]
pub async fn schedule(
    State(app): State<Arc<AppState>>,
    AppJson(body): AppJson<ScheduleRunRequest>,
) -> ApiResult<ScheduleResponse> {
    let (subject, _, options) = body.single()?;
    let scheduled = app
        .scheduler
        .schedule(subject, options)
        .await
        .map_err(map_not_found(run_not_found()))?;
    Ok(Json(scheduled.into()))
}

/// Queues a control run; with `action`, does something with many.
#[utoipa::path(post, path = "/schedule-control", tag = "queue", request_body = ScheduleRunRequest,
    responses((status = 200, body = ScheduleResponse, description = "with `action`: {action, affected_count, items}"), (status = 404, description = "{reason}"), (status = 422)))]
pub async fn schedule_control(
    State(app): State<Arc<AppState>>,
    AppJson(body): AppJson<ScheduleRunRequest>,
) -> Result<Response, ApiError> {
    if body.is_bulk() {
        let request = body.bulk()?;
        let (action, dry_run) = (request.action, request.dry_run);
        let affected = app.scheduler.bulk(request).await?;
        return Ok(Json(BulkResponse::new(action, dry_run, affected)).into_response());
    }
    let (subject, revision, options) = body.single()?;
    let scheduled = app
        .scheduler
        .schedule_control(subject, revision, options)
        .await
        .map_err(map_not_found(run_not_found()))?;
    Ok(Json(ScheduleResponse::from(scheduled)).into_response())
}
