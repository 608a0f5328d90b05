//! Health, readiness and metrics.

use super::{AppState, error::ApiError};
use crate::{domain::time::iso, ports::Fault};
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

/// Returns 200 or 503.
pub fn health_status(healthy: bool) -> StatusCode {
    if healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

/// Returns `ok` while the process can respond; with `Accept: application/json`, checks each
/// adapter in use.
#[utoipa::path(
    get,
    path = "/health",
    tag = "health",
    responses(
        (status = 200, description = "`ok`, or {status, version, timestamp, checks}"),
        (status = 503),
    )
)]
pub async fn health(State(app): State<Arc<AppState>>, headers: HeaderMap) -> Response {
    if !wants_json(&headers) {
        return "ok".into_response();
    }
    let checks = app.health.checks().await;
    let healthy = checks.iter().all(|check| check.failure.is_none());
    let status = |healthy| if healthy { "ok" } else { "failing" };
    let checks: Map<_, _> = checks
        .into_iter()
        .map(|check| {
            (
                check.name.to_owned(),
                json!({ "status": status(check.failure.is_none()), "message": check.failure }),
            )
        })
        .collect();
    let body = json!({
        "status": status(healthy),
        "version": env!("CARGO_PKG_VERSION"),
        "timestamp": iso(app.clock.now()),
        "checks": checks,
    });
    (health_status(healthy), Json(body)).into_response()
}

/// Returns whether the runner can do its work: 503 while a store that it needs cannot be used.
#[utoipa::path(
    get,
    path = "/ready",
    tag = "health",
    responses(
        (status = 200, description = "`ok`"),
        (status = 503, description = "text: what is wrong"),
    )
)]
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
        (health_status(false), failing.join("\n")).into_response()
    }
}

/// Returns the metrics, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "health",
    responses((status = 200, body = String, content_type = "text/plain"))
)]
pub async fn metrics(State(app): State<Arc<AppState>>) -> Result<Response, ApiError> {
    // Metrics that the store provides are left out while it cannot be reached: the others are
    // needed then more than ever.
    let queued = app
        .overview
        .figures()
        .await
        .map(|figures| figures.by_bucket)
        .unwrap_or_default();
    let processing = app
        .overview
        .status()
        .await
        .map(|status| status.processing)
        .unwrap_or_default();
    let mut active = BTreeMap::new();
    for run in processing {
        *active
            .entry(run.claimant.worker.unwrap_or_default())
            .or_default() += 1;
    }
    let text = app
        .metrics
        .text(&queued, &active)
        .map_err(|error| Fault::backend("write the figures", error))?;
    Ok((
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response())
}
