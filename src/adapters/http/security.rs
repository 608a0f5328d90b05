//! What an operator sees of attacks.

use super::{AppState, extract::ApiResult};
use crate::adapters::wire::SecurityStatsResponse;
use axum::{Json, extract::State};
use std::sync::Arc;

/// Returns how many logins were wrong or refused since the runner started, and from which addresses
/// most of them came.
#[utoipa::path(
    get,
    path = "/admin/security/stats",
    tag = "admin",
    responses((status = 200, body = SecurityStatsResponse))
)]
pub async fn stats(State(app): State<Arc<AppState>>) -> ApiResult<SecurityStatsResponse> {
    Ok(Json(app.logins.figures().into()))
}
