//! The queue, and runs that are scheduled by hand.

use super::{
    AppState,
    audit::{Audited, AuditedResult},
    error::{ApiError, map_not_found},
    extract::{AnyTypeJson, ApiResult, AppPath, AppQuery},
    page::PageQuery,
};
use crate::adapters::wire::{
    BulkResponse, ExplanationResponse, PositionResponse, QueueItemResponse, QueueStatsResponse,
    ScheduleResponse, ScheduleRunRequest, StatusResponse,
};
use crate::domain::{
    audit::{Action, Change},
    name::{CampaignName, CodebaseName},
    queue::QueueId,
    schedule::Pair,
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

/// Names a codebase and a campaign.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PairQuery {
    /// The name of the codebase.
    codebase: String,
    /// The name of the campaign.
    campaign: String,
}

/// Returns the active runs, and the hosts from which nothing is assigned.
#[utoipa::path(
    get,
    path = "/status",
    tag = "queue",
    responses((status = 200, body = StatusResponse))
)]
pub async fn status(State(app): State<Arc<AppState>>) -> ApiResult<StatusResponse> {
    Ok(Json(app.status_response().await?))
}

/// Lists the queue, in order.
#[utoipa::path(
    get,
    path = "/queue",
    tag = "queue",
    params(PageQuery),
    responses((status = 200, body = [QueueItemResponse]))
)]
pub async fn list(
    State(app): State<Arc<AppState>>,
    AppQuery(page): AppQuery<PageQuery>,
) -> ApiResult<Vec<QueueItemResponse>> {
    let items = app.overview.queue(page.limit.unwrap_or(usize::MAX)).await?;
    Ok(Json(items.into_iter().map(Into::into).collect()))
}

/// Returns the position of a pair in the queue; nulls when it is not queued.
#[utoipa::path(
    get,
    path = "/queue/position",
    tag = "queue",
    params(PairQuery),
    responses((status = 200, body = PositionResponse))
)]
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

/// Returns figures about the queue.
#[utoipa::path(
    get,
    path = "/queue/stats",
    tag = "queue",
    responses((status = 200, body = QueueStatsResponse))
)]
pub async fn stats(State(app): State<Arc<AppState>>) -> ApiResult<QueueStatsResponse> {
    Ok(Json(QueueStatsResponse::new(
        app.overview.figures().await?,
        true,
    )))
}

/// Returns figures about the queue, without names.
#[utoipa::path(
    get,
    path = "/queue/stats",
    tag = "workers",
    responses((status = 200, body = QueueStatsResponse))
)]
pub async fn stats_public(State(app): State<Arc<AppState>>) -> ApiResult<QueueStatsResponse> {
    Ok(Json(QueueStatsResponse::new(
        app.overview.recent_figures().await?,
        false,
    )))
}

/// Explains the position of a queue item, and why it is not assigned.
#[utoipa::path(
    get,
    path = "/queue/{queue_id}/explain",
    tag = "queue",
    params(("queue_id" = i64, Path)),
    responses((status = 200, body = ExplanationResponse), (status = 404))
)]
pub async fn explain(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<QueueId>,
) -> ApiResult<ExplanationResponse> {
    Ok(Json(app.explainer.explain(id).await?.into()))
}

fn scheduled_change(action: Action, response: &ScheduleResponse) -> Change {
    let object = format!("{} {}", response.campaign, response.codebase);
    Change::new(action, object).after(json!(response))
}

fn bulk_change(campaign: &str, response: &BulkResponse) -> Change {
    let object = format!(
        "{} {} of {campaign}",
        response.action, response.affected_count
    );
    Change::new(Action::ScheduleBulk, object).after(json!(response.items))
}

fn run_not_found() -> ApiError {
    ApiError::reason(StatusCode::NOT_FOUND, "Run not found")
}

/// Schedules a run of a pair, or repeats an earlier run.
#[utoipa::path(
    post,
    path = "/schedule",
    tag = "queue",
    request_body = ScheduleRunRequest,
    responses(
        (status = 200, body = ScheduleResponse),
        (status = 400, description = "text: no command"),
        (status = 404, description = "{reason}"),
        (status = 422),
    )
)]
pub async fn schedule(
    State(app): State<Arc<AppState>>,
    AnyTypeJson(body): AnyTypeJson<ScheduleRunRequest>,
) -> AuditedResult<ScheduleResponse> {
    let (subject, _, options) = body.single()?;
    let scheduled = app
        .scheduler
        .schedule(subject, options)
        .await
        .map_err(map_not_found(run_not_found()))?;
    let response = ScheduleResponse::from(scheduled);
    let change = scheduled_change(Action::Schedule, &response);
    Ok(Audited(Json(response), vec![change]))
}

/// Schedules a control run; with `action`, reschedules, deschedules or resets many items.
#[utoipa::path(
    post,
    path = "/schedule-control",
    tag = "queue",
    request_body = ScheduleRunRequest,
    responses(
        (
            status = 200,
            body = ScheduleResponse,
            description = "with `action`: {action, affected_count, items}"
        ),
        (status = 404, description = "{reason}"),
        (status = 422),
    )
)]
pub async fn schedule_control(
    State(app): State<Arc<AppState>>,
    AnyTypeJson(body): AnyTypeJson<ScheduleRunRequest>,
) -> Result<Response, ApiError> {
    if body.is_bulk() {
        let request = body.bulk()?;
        let (action, dry_run) = (request.action, request.dry_run);
        let campaign = request.campaign.clone();
        let affected = app.scheduler.bulk(request).await?;
        let response = BulkResponse::new(action, dry_run, affected);
        let changes = if dry_run {
            vec![]
        } else {
            vec![bulk_change(campaign.as_str(), &response)]
        };
        return Ok(Audited(Json(response), changes).into_response());
    }
    let (subject, revision, options) = body.single()?;
    let scheduled = app
        .scheduler
        .schedule_control(subject, revision, options)
        .await
        .map_err(map_not_found(run_not_found()))?;
    let response = ScheduleResponse::from(scheduled);
    let change = scheduled_change(Action::ScheduleControl, &response);
    Ok(Audited(Json(response), vec![change]).into_response())
}
