//! Codebases and candidates.

use super::{
    AppState,
    audit::{Audited, AuditedResult},
    error::ApiError,
    extract::{AnyTypeJson, ApiResult, AppPath, AppQuery},
    page::PageQuery,
};
use crate::{
    adapters::wire::{
        CandidateRequest, CandidateResponse, CandidatesResponse, CodebaseRequest, CodebaseResponse,
    },
    domain::{
        audit::{Action, Change},
        codebase::CodebaseUpload,
    },
};
use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// How many of the names of an upload are in the audit log.
const MAX_NAMED: usize = 20;

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
    let limit = page.limit.unwrap_or(usize::MAX);
    let codebases = app.ingest.codebases(limit).await?;
    Ok(Json(codebases.into_iter().map(Into::into).collect()))
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
) -> AuditedResult<Value> {
    let uploads: Vec<CodebaseUpload> = list.into_iter().map(Into::into).collect();
    let (count, named) = (uploads.len(), uploads.iter().take(MAX_NAMED));
    let names: Vec<_> = named.map(|upload| json!(upload.name)).collect();
    app.ingest.upload_codebases(uploads).await?;
    let change = Change::new(Action::UploadCodebases, format!("{count} codebases"))
        .after(json!({ "first": names }));
    Ok(Audited(Json(json!({})), vec![change]))
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
    let limit = page.limit.unwrap_or(usize::MAX);
    let candidates = app.ingest.candidates(limit).await?;
    Ok(Json(candidates.into_iter().map(Into::into).collect()))
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
) -> AuditedResult<CandidatesResponse> {
    let entries = list
        .into_iter()
        .enumerate()
        .map(|(index, body)| body.entry(index));
    let entries = entries
        .collect::<Result<_, _>>()
        .map_err(|text| ApiError::text(StatusCode::BAD_REQUEST, text))?;
    let response: CandidatesResponse = app.ingest.upload_candidates(entries).await?.into();
    let accepted = response.accepted();
    let change = Change::new(
        Action::UploadCandidates,
        format!("{} candidates", accepted.len()),
    )
    .after(json!({ "first": accepted.get(..accepted.len().min(MAX_NAMED)) }));
    let changes = if accepted.is_empty() {
        vec![]
    } else {
        vec![change]
    };
    Ok(Audited(Json(response), changes))
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
) -> AuditedResult<Value> {
    app.ingest.delete_candidate(id).await?;
    let change = Change::new(Action::DeleteCandidate, id.to_string());
    Ok(Audited(Json(json!({})), vec![change]))
}
