//! Codebases and candidates.

use super::{
    App,
    error::ApiError,
    extract::{Answer, Body, InPath, InQuery},
    queue::Limit,
    shapes::{
        CandidateShape, CandidateUploadBody, CandidatesUploaded, CodebaseBody, CodebaseShape,
    },
};
use axum::{Json, extract::State, http::StatusCode};
use serde_json::{Value, json};
use std::sync::Arc;

/// All codebases, in the order of their first upload.
#[utoipa::path(get, path = "/codebases", tag = "catalog", params(Limit), responses((status = 200, body = [CodebaseShape])))]
pub async fn codebases(
    State(app): State<Arc<App>>,
    InQuery(limit): InQuery<Limit>,
) -> Answer<Vec<CodebaseShape>> {
    let codebases = app.ingest.codebases().await?;
    Ok(Json(
        codebases
            .into_iter()
            .take(limit.limit.unwrap_or(usize::MAX))
            .map(Into::into)
            .collect(),
    ))
}

/// Stores codebases, all or none. One that is there already is replaced.
#[utoipa::path(post, path = "/codebases", tag = "catalog", request_body = [CodebaseBody],
    responses((status = 200, description = "{}"), (status = 400), (status = 422)))]
pub async fn upload_codebases(
    State(app): State<Arc<App>>,
    Body(list): Body<Vec<CodebaseBody>>,
) -> Answer<Value> {
    app.ingest
        .upload_codebases(list.into_iter().map(Into::into).collect())
        .await?;
    Ok(Json(json!({})))
}

/// All candidates, by id.
#[utoipa::path(get, path = "/candidates", tag = "catalog", params(Limit), responses((status = 200, body = [CandidateShape])))]
pub async fn candidates(
    State(app): State<Arc<App>>,
    InQuery(limit): InQuery<Limit>,
) -> Answer<Vec<CandidateShape>> {
    let candidates = app.ingest.candidates().await?;
    Ok(Json(
        candidates
            .into_iter()
            .take(limit.limit.unwrap_or(usize::MAX))
            .map(Into::into)
            .collect(),
    ))
}

/// Stores candidates and schedules them; each entry for itself, in one step for the list.
#[utoipa::path(post, path = "/candidates", tag = "catalog", request_body = [CandidateUploadBody],
    responses((status = 200, body = CandidatesUploaded), (status = 400, description = "text: no codebase or campaign"), (status = 422)))]
pub async fn upload_candidates(
    State(app): State<Arc<App>>,
    Body(list): Body<Vec<CandidateUploadBody>>,
) -> Answer<CandidatesUploaded> {
    let entries = list
        .into_iter()
        .enumerate()
        .map(|(place, body)| body.entry(place));
    let entries = entries
        .collect::<Result<_, _>>()
        .map_err(|text| ApiError::text(StatusCode::BAD_REQUEST, text))?;
    Ok(Json(app.ingest.upload_candidates(entries).await?.into()))
}

/// Takes a candidate away, with its follow-ups and its queue item.
#[utoipa::path(delete, path = "/candidates/{id}", tag = "catalog", params(("id" = i64, Path)),
    responses((status = 200, description = "{}"), (status = 400), (status = 404)))]
pub async fn delete_candidate(
    State(app): State<Arc<App>>,
    InPath(id): InPath<i64>,
) -> Answer<Value> {
    app.ingest.delete_candidate(id).await?;
    Ok(Json(json!({})))
}
