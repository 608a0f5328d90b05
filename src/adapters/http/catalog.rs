//! Codebases and candidates.

use super::{
    AppState,
    error::ApiError,
    extract::{AnyTypeJson, ApiResult, AppPath, AppQuery},
    page::PageQuery,
};
use crate::adapters::wire::{
    CandidateRequest, CandidateResponse, CandidatesResponse, CodebaseRequest, CodebaseResponse,
};
use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// Lists the codebases, in the order of their first upload.
#[utoipa::path(
    get,
    path = "/codebases",
    tag = "catalog",
    params(PageQuery),
    responses((status = 200, body = [CodebaseResponse]))
)]
pub async fn codebases(
    State(app): State<Arc<AppState>>,
    AppQuery(page): AppQuery<PageQuery>,
) -> ApiResult<Vec<CodebaseResponse>> {
    let codebases = app.ingest.codebases().await?;
    Ok(Json(
        codebases
            .into_iter()
            .take(page.limit.unwrap_or(usize::MAX))
            .map(Into::into)
            .collect(),
    ))
}

/// Stores codebases, all or none of them. One that is stored already is replaced.
#[utoipa::path(
    post,
    path = "/codebases",
    tag = "catalog",
    request_body = [CodebaseRequest],
    responses((status = 200, description = "{}"), (status = 400), (status = 422))
)]
pub async fn upload_codebases(
    State(app): State<Arc<AppState>>,
    AnyTypeJson(list): AnyTypeJson<Vec<CodebaseRequest>>,
) -> ApiResult<Value> {
    app.ingest
        .upload_codebases(list.into_iter().map(Into::into).collect())
        .await?;
    Ok(Json(json!({})))
}

/// Lists the candidates, by id.
#[utoipa::path(
    get,
    path = "/candidates",
    tag = "catalog",
    params(PageQuery),
    responses((status = 200, body = [CandidateResponse]))
)]
pub async fn candidates(
    State(app): State<Arc<AppState>>,
    AppQuery(page): AppQuery<PageQuery>,
) -> ApiResult<Vec<CandidateResponse>> {
    let candidates = app.ingest.candidates().await?;
    Ok(Json(
        candidates
            .into_iter()
            .take(page.limit.unwrap_or(usize::MAX))
            .map(Into::into)
            .collect(),
    ))
}

/// Stores candidates and schedules them, in one step. Entries that are not valid are left out.
#[utoipa::path(
    post,
    path = "/candidates",
    tag = "catalog",
    request_body = [CandidateRequest],
    responses(
        (status = 200, body = CandidatesResponse),
        (status = 400, description = "text: no codebase or campaign"),
        (status = 422),
    )
)]
pub async fn upload_candidates(
    State(app): State<Arc<AppState>>,
    AnyTypeJson(list): AnyTypeJson<Vec<CandidateRequest>>,
) -> ApiResult<CandidatesResponse> {
    let entries = list
        .into_iter()
        .enumerate()
        .map(|(index, body)| body.entry(index));
    let entries = entries
        .collect::<Result<_, _>>()
        .map_err(|text| ApiError::text(StatusCode::BAD_REQUEST, text))?;
    Ok(Json(app.ingest.upload_candidates(entries).await?.into()))
}

/// Deletes a candidate, with its follow-ups and its queue item.
#[utoipa::path(
    delete,
    path = "/candidates/{id}",
    tag = "catalog",
    params(("id" = i64, Path)),
    responses((status = 200, description = "{}"), (status = 400), (status = 404))
)]
pub async fn delete_candidate(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<i64>,
) -> ApiResult<Value> {
    app.ingest.delete_candidate(id).await?;
    Ok(Json(json!({})))
}
