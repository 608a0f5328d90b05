//! The watcher of the active runs.

use super::{AppState, error::ApiError, health::health_status};
use crate::adapters::wire::WatchdogResponse;
use axum::{Json, extract::State, http::StatusCode};
use std::sync::Arc;

/// Returns the state of the watcher and of all active runs.
#[utoipa::path(
    get,
    path = "/watchdog/health",
    tag = "health",
    responses(
        (status = 200, body = WatchdogResponse),
        (status = 503, body = WatchdogResponse, description = "the watcher has stalled"),
    )
)]
pub async fn watchdog(
    State(app): State<Arc<AppState>>,
) -> Result<(StatusCode, Json<WatchdogResponse>), ApiError> {
    let runs = app.watcher.overview().await?;
    let stalled = app.watcher.stalled_for();
    Ok((
        health_status(stalled.is_none()),
        Json(WatchdogResponse::new(&runs, stalled, app.clock.now())),
    ))
}
