//! Parked items.

use super::{
    AppState,
    audit::{Audited, AuditedResult},
    extract::{ApiResult, AppJson, AppQuery},
    page::page_size,
};
use crate::{
    adapters::wire::{ParkedPageResponse, ParkedResponse, UnparkRequest, UnparkedResponse},
    domain::{
        audit::{Action, Change},
        queue::QueueId,
    },
};
use axum::{Json, extract::State};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use utoipa::IntoParams;

/// Selects a page of the parked items.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ParkedQuery {
    /// The maximum number of items: 1 to 1000, 100 when absent.
    limit: Option<usize>,
    /// The field `next` of the page before.
    cursor: Option<QueueId>,
}

/// Lists the items whose runs failed too often, and which wait until somebody unparks them.
#[utoipa::path(
    get,
    path = "/parked",
    tag = "parked",
    params(ParkedQuery),
    responses((status = 200, body = ParkedPageResponse))
)]
pub async fn list(
    State(app): State<Arc<AppState>>,
    AppQuery(query): AppQuery<ParkedQuery>,
) -> ApiResult<ParkedPageResponse> {
    let (page, next) = app
        .parked
        .list(query.cursor, page_size(query.limit))
        .await?;
    Ok(Json(ParkedPageResponse {
        parked: page.into_iter().map(ParkedResponse::from).collect(),
        next,
    }))
}

/// Unparks items: parked or snoozed ones by id, or all parked ones of a campaign, of a codebase,
/// or at all.
#[utoipa::path(
    post,
    path = "/parked/unpark",
    tag = "parked",
    request_body = UnparkRequest,
    responses((status = 200, body = UnparkedResponse), (status = 422))
)]
pub async fn unpark(
    State(app): State<Arc<AppState>>,
    AppJson(body): AppJson<UnparkRequest>,
) -> AuditedResult<UnparkedResponse> {
    let unparked = app.parked.unpark(body.selection()?).await?;
    let change = Change::new(Action::Unpark, format!("{} items", unparked.len()))
        .after(json!({ "queue_ids": unparked }));
    let changes = if unparked.is_empty() {
        vec![]
    } else {
        vec![change]
    };
    Ok(Audited(Json(UnparkedResponse { unparked }), changes))
}
