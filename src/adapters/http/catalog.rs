//! Codebases and candidates.

use super::{
    AppState,
    audit::{Audited, AuditedResult},
    error::ApiError,
    extract::{AnyTypeJson, ApiResult, AppPath, AppQuery},
    lines::{Line, Report, StoreEntries, has_lines, upload},
    page::PageQuery,
};
use crate::{
    adapters::wire::{
        CandidateRequest, CandidateResponse, CandidatesResponse, CodebaseRequest, CodebaseResponse,
        LinesResponse,
    },
    domain::{
        audit::{Action, Change},
        candidate::CandidateEntry,
        codebase::CodebaseUpload,
    },
};
use axum::{
    Json,
    extract::{FromRequest, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
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

/// Stores the codebases of lines.
struct CodebaseLines;

impl StoreEntries for CodebaseLines {
    type Entry = CodebaseRequest;

    const ACTION: Action = Action::UploadCodebases;

    async fn store(
        &self,
        app: &AppState,
        entries: Vec<Line<CodebaseRequest>>,
        report: &mut Report,
    ) -> Result<(), ApiError> {
        let uploads: Vec<CodebaseUpload> =
            entries.into_iter().map(|line| line.entry.into()).collect();
        let count = uploads.len();
        app.ingest.upload_codebases(uploads).await?;
        report.stored(count);
        Ok(())
    }
}

/// Stores the candidates of lines.
struct CandidateLines;

impl StoreEntries for CandidateLines {
    type Entry = CandidateRequest;

    const ACTION: Action = Action::UploadCandidates;

    async fn store(
        &self,
        app: &AppState,
        lines: Vec<Line<CandidateRequest>>,
        report: &mut Report,
    ) -> Result<(), ApiError> {
        let (mut numbers, mut entries) = (vec![], vec![]);
        for (index, line) in lines.into_iter().enumerate() {
            entries.push(candidate_entry(line.entry, index)?);
            numbers.push(line.number);
        }
        let uploaded = app.ingest.upload_candidates(entries).await?;
        report.stored(uploaded.accepted.len());
        for (index, rejection) in uploaded.rejected {
            let number = numbers.get(index).copied().unwrap_or_default();
            report.rejected(number, rejection.to_string());
        }
        Ok(())
    }
}

fn candidate_entry(body: CandidateRequest, index: usize) -> Result<CandidateEntry, ApiError> {
    let entry = body.entry(index);
    entry.map_err(|text| ApiError::text(StatusCode::BAD_REQUEST, text))
}

/// Stores codebases, all or none of them. One that is stored already is replaced.
///
/// Of `application/x-ndjson`, any number of codebases, one in each line, each is stored on its own
/// while they arrive; those that cannot be are in the response, with the numbers of their lines.
#[utoipa::path(
    post,
    path = "/codebases",
    tag = "catalog",
    request_body(content((Vec<CodebaseRequest> = "application/json"), (String = "application/x-ndjson"))),
    responses(
        (status = 200, description = "{}, or what became of the lines", body = LinesResponse),
        (status = 400),
        (status = 422),
    )
)]
pub async fn upload_codebases(
    State(app): State<Arc<AppState>>,
    request: Request,
) -> Result<Audited<Response>, ApiError> {
    if has_lines(&request) {
        return Ok(upload(&app, request, CodebaseLines).await);
    }
    let AnyTypeJson(list) = AnyTypeJson::from_request(request, &app).await?;
    let Audited(response, changes) = upload_codebase_list(&app, list).await?;
    Ok(Audited(response.into_response(), changes))
}

async fn upload_codebase_list(app: &AppState, list: Vec<CodebaseRequest>) -> AuditedResult<Value> {
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
///
/// Of `application/x-ndjson`, any number of candidates, one in each line, each is stored on its own
/// while they arrive; the response says how many were (`stored`), and which lines were not.
#[utoipa::path(
    post,
    path = "/candidates",
    tag = "catalog",
    request_body(content((Vec<CandidateRequest> = "application/json"), (String = "application/x-ndjson"))),
    responses(
        (status = 200, body = CandidatesResponse),
        (status = 400, description = "text: no codebase or campaign"),
        (status = 422),
    )
)]
pub async fn upload_candidates(
    State(app): State<Arc<AppState>>,
    request: Request,
) -> Result<Audited<Response>, ApiError> {
    if has_lines(&request) {
        return Ok(upload(&app, request, CandidateLines).await);
    }
    let AnyTypeJson(list) = AnyTypeJson::from_request(request, &app).await?;
    let Audited(response, changes) = upload_candidate_list(&app, list).await?;
    Ok(Audited(response.into_response(), changes))
}

async fn upload_candidate_list(
    app: &AppState,
    list: Vec<CandidateRequest>,
) -> AuditedResult<CandidatesResponse> {
    let entries = list
        .into_iter()
        .enumerate()
        .map(|(index, body)| candidate_entry(body, index));
    let entries = entries.collect::<Result<_, _>>()?;
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
