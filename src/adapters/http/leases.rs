//! Signs of life of workers: keepalives, and the logs that they send while a run is active.

use super::{
    AppState,
    error::ApiError,
    extract::{ApiResult, AppPath, received},
    public::Login,
};
use crate::domain::{
    active_run::ActiveRun,
    name::RunId,
    time::{Time, iso},
};
use axum::{
    Extension, Json,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;

/// The most that is taken at once.
const LARGEST_BIT: u64 = 1 << 20;

/// How a run stands.
#[derive(Debug, Serialize, ToSchema)]
pub struct KeepaliveResponse {
    /// Until when the worker has the run for sure; null without a lease.
    lease_until: Option<String>,
    /// Why the worker is to stop; null: it is not.
    cancel: Option<String>,
}

impl From<ActiveRun> for KeepaliveResponse {
    fn from(run: ActiveRun) -> Self {
        Self {
            lease_until: run.lease_until.map(|until: Time| iso(until)),
            cancel: run.cancel,
        }
    }
}

/// What there is of a log.
#[derive(Debug, Serialize, ToSchema)]
pub struct SizeResponse {
    /// Bytes.
    size: u64,
    /// Why the worker is to stop; null: it is not.
    cancel: Option<String>,
}

/// Notes a sign of life, which renews the lease of the run.
#[utoipa::path(post, path = "/active-runs/{run_id}/keepalive", tag = "active runs", params(("run_id" = String, Path)),
    responses((status = 200, body = KeepaliveResponse), (status = 404), (status = 410, description = "it is not active any more; {run_id, stop}: whether its result is of no use")))]
pub async fn keepalive(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<RunId>,
) -> ApiResult<KeepaliveResponse> {
    Ok(Json(app.keepalive.renew(&id, None).await?.into()))
}

/// Notes a sign of life of the worker that is logged in.
#[utoipa::path(post, path = "/runner/active-runs/{run_id}/keepalive", tag = "workers", params(("run_id" = String, Path)),
    responses((status = 200, body = KeepaliveResponse), (status = 401), (status = 403), (status = 404), (status = 410, description = "it is not active any more; {run_id, stop}")))]
pub async fn keepalive_public(
    State(app): State<Arc<AppState>>,
    Extension(Login(worker)): Extension<Login>,
    AppPath(id): AppPath<RunId>,
) -> ApiResult<KeepaliveResponse> {
    Ok(Json(app.keepalive.renew(&id, Some(&worker)).await?.into()))
}

/// Reads `bytes A-B/*`: where a bit begins, and how long it says it is.
fn content_range(headers: &HeaderMap) -> Result<(u64, u64), ApiError> {
    let wrong = || {
        ApiError::problem(
            StatusCode::BAD_REQUEST,
            "Content-Range: must be `bytes FIRST-LAST/*`",
        )
        .with("field", "Content-Range")
    };
    let text = headers
        .get(header::CONTENT_RANGE)
        .and_then(|range| range.to_str().ok())
        .ok_or_else(wrong)?;
    let (range, _size) = text
        .trim()
        .strip_prefix("bytes ")
        .and_then(|rest| rest.split_once('/'))
        .ok_or_else(wrong)?;
    let (first, last) = range.split_once('-').ok_or_else(wrong)?;
    let number = |digits: &str| digits.trim().parse::<u64>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    let length = last
        .checked_sub(first)
        .and_then(|rest| rest.checked_add(1))
        .ok_or_else(wrong)?;
    Ok((first, length))
}

async fn append(
    app: &AppState,
    id: &RunId,
    worker: Option<&str>,
    name: &str,
    request: Request,
) -> Result<(StatusCode, Json<SizeResponse>), ApiError> {
    let (first, length) = content_range(request.headers())?;
    let bytes = received(request, LARGEST_BIT).await?;
    if bytes.len() as u64 != length {
        let detail = format!(
            "Content-Range: it says {length} bytes, and the body has {}",
            bytes.len()
        );
        return Err(
            ApiError::problem(StatusCode::BAD_REQUEST, detail).with("field", "Content-Range")
        );
    }
    let (size, run) = app.live_log.append(id, worker, name, first, bytes).await?;
    Ok((
        StatusCode::ACCEPTED,
        Json(SizeResponse {
            size,
            cancel: run.cancel,
        }),
    ))
}

/// Adds a bit to a log of an active run, at the place that `Content-Range: bytes FIRST-LAST/*` names. A repeat is harmless. It is a sign of life too.
#[utoipa::path(patch, path = "/active-runs/{run_id}/logs/{name}", tag = "active runs", params(("run_id" = String, Path), ("name" = String, Path)),
    request_body(content_type = "text/plain", content = String),
    responses((status = 202, body = SizeResponse), (status = 400), (status = 404), (status = 410), (status = 413), (status = 416, description = "{size}: there is a gap; so much is there"), (status = 422)))]
pub async fn append_log(
    State(app): State<Arc<AppState>>,
    AppPath((id, name)): AppPath<(RunId, String)>,
    request: Request,
) -> Result<(StatusCode, Json<SizeResponse>), ApiError> {
    append(&app, &id, None, &name, request).await
}

/// Adds a bit to a log of an active run of the worker that is logged in.
#[utoipa::path(patch, path = "/runner/active-runs/{run_id}/logs/{name}", tag = "workers", params(("run_id" = String, Path), ("name" = String, Path)),
    request_body(content_type = "text/plain", content = String),
    responses((status = 202, body = SizeResponse), (status = 400), (status = 401), (status = 403), (status = 404), (status = 410), (status = 413), (status = 416, description = "{size}"), (status = 422)))]
pub async fn append_log_public(
    State(app): State<Arc<AppState>>,
    Extension(Login(worker)): Extension<Login>,
    AppPath((id, name)): AppPath<(RunId, String)>,
    request: Request,
) -> Result<(StatusCode, Json<SizeResponse>), ApiError> {
    append(&app, &id, Some(&worker), &name, request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        let read = |text: &str| {
            content_range(&HeaderMap::from_iter([(
                header::CONTENT_RANGE,
                text.parse().unwrap(),
            )]))
        };
        assert_eq!(read("bytes 0-0/*").unwrap(), (0, 1));
        assert_eq!(read("bytes 5-9/100").unwrap(), (5, 5));
        for bad in [
            "",
            "bytes 5-9",
            "bytes 9-5/*",
            "bytes */5",
            "lines 1-2/*",
            "bytes a-b/*",
            "bytes 0-18446744073709551615/*",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(content_range(&HeaderMap::new()).is_err());
    }
}
