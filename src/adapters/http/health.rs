//! Health, readiness and figures.

use super::{AppState, error::ApiError};
use crate::adapters::wire::WatchdogResponse;
use crate::domain::time::iso;
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, json};
use std::{collections::BTreeMap, sync::Arc};

fn wants_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("application/json"))
}

fn healthy(well: bool) -> StatusCode {
    if well {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// Whether the process answers; with `Accept: application/json`, a check of each adapter in use.
#[utoipa::path(get, path = "/health", tag = "health", responses((status = 200, description = "`ok`, or {status, version, timestamp, checks}"), (status = 503)))]
pub async fn health(State(app): State<Arc<AppState>>, headers: HeaderMap) -> Response {
    if !wants_json(&headers) {
        return "ok".into_response();
    }
    let checks = app.health.checks().await;
    let well = checks.iter().all(|check| check.failure.is_none());
    let status = |well| if well { "ok" } else { "failing" };
    let checks: Map<_, _> = checks
        .into_iter()
        .map(|check| {
            (
                check.name.to_owned(),
                json!({ "status": status(check.failure.is_none()), "message": check.failure }),
            )
        })
        .collect();
    let body = json!({ "status": status(well), "version": env!("CARGO_PKG_VERSION"), "timestamp": iso(app.clock.now()), "checks": checks });
    (healthy(well), Json(body)).into_response()
}

/// Whether work can be done: 503 while a store cannot be used that nothing stands in for.
#[utoipa::path(get, path = "/ready", tag = "health", responses((status = 200, description = "`ok`"), (status = 503, description = "text: what is wrong")))]
pub async fn ready(State(app): State<Arc<AppState>>) -> Response {
    let checks = app.health.checks().await;
    let failing: Vec<String> = checks
        .into_iter()
        .filter(|check| check.needed)
        .filter_map(|check| Some(format!("{}: {}", check.name, check.failure?)))
        .collect();
    if failing.is_empty() {
        "ok".into_response()
    } else {
        (healthy(false), failing.join("\n")).into_response()
    }
}

/// How the watching of the active runs goes.
#[utoipa::path(get, path = "/watchdog/health", tag = "health", responses((status = 200, body = WatchdogResponse), (status = 503, body = WatchdogResponse, description = "nobody watches")))]
pub async fn watchdog(
    State(app): State<Arc<AppState>>,
) -> Result<(StatusCode, Json<WatchdogResponse>), ApiError> {
    let (runs, stands_still) = (app.watcher.overview().await?, app.watcher.stalled_for());
    Ok((
        healthy(stands_still.is_none()),
        Json(WatchdogResponse::new(&runs, stands_still, app.clock.now())),
    ))
}

/// Figures for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(State(app): State<Arc<AppState>>) -> Result<Response, ApiError> {
    // Figures about the store are left out while it is away; all others are wanted then more than ever.
    let queued = app
        .overview
        .figures()
        .await
        .map(|figures| figures.by_bucket)
        .unwrap_or_default();
    let mut active = BTreeMap::new();
    for run in app
        .overview
        .status()
        .await
        .map(|status| status.processing)
        .unwrap_or_default()
    {
        *active
            .entry(run.claimant.worker.unwrap_or_default())
            .or_default() += 1;
    }
    let text = app
        .metrics
        .text(&queued, &active)
        .map_err(|e| crate::ports::Fault::backend("write the figures", e))?;
    Ok((
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response())
}
