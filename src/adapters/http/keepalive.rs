//! Heartbeats of workers.

use super::{
    AppState,
    extract::{ApiResult, AppPath},
};
use crate::{
    adapters::wire::KeepaliveResponse,
    domain::{caller::Caller, name::RunId},
};
use axum::{Json, extract::State};
use std::sync::Arc;

/// Records a heartbeat, which renews the lease of the run.
#[utoipa::path(
    post,
    path = "/active-runs/{run_id}/keepalive",
    tag = "active runs",
    params(("run_id" = String, Path)),
    responses(
        (status = 200, body = KeepaliveResponse),
        (status = 404, description = "there is no such run"),
        (status = 410, description = "not active any more; {run_id, stop}, stop: its result is useless"),
    )
)]
pub async fn keepalive(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    AppPath(id): AppPath<RunId>,
) -> ApiResult<KeepaliveResponse> {
    Ok(Json(app.keepalive.renew(&id, &caller).await?.into()))
}
