//! Finished runs, and logs of all.

use super::{
    App,
    error::{ApiError, absent},
    extract::{Answer, Body, InPath, InQuery},
    queue::Limit,
    shapes::{ActiveRunShape, PublishStatusShape, RunShape},
};
use crate::{
    domain::{log_name::check_file_name, name::RunId, run::Run},
    services::ServiceError,
};
use axum::{
    Json,
    body::Body as ResponseBody,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio_util::io::ReaderStream;
use utoipa::{IntoParams, ToSchema};

const MOST_RUNS: usize = 1000;

/// How much of a run is shown.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Detail {
    /// `1`: every stored fact.
    full: Option<u8>,
}

/// A decision about a run.
#[derive(Debug, Deserialize, ToSchema)]
pub struct PublishStatusBody {
    /// One of unknown, blocked, needs-manual-review, rejected, approved, ignored.
    publish_status: String,
}

fn no_such_run(id: &RunId) -> impl FnOnce(ServiceError) -> ApiError {
    absent(ApiError::text(StatusCode::NOT_FOUND, format!("no such run: {id}")))
}

fn no_current_run(id: &RunId) -> impl FnOnce(ServiceError) -> ApiError {
    let text = format!("No such current run: {id}");
    move |error| match error {
        ServiceError::NotFound { what: "log", .. } => ApiError::text(StatusCode::NOT_FOUND, "No such log file"),
        error => absent(ApiError::text(StatusCode::NOT_FOUND, text))(error).in_text(),
    }
}

fn brief(run: &Run) -> Value {
    json!({ "codebase": run.codebase, "campaign": run.campaign, "publish_status": run.publish_status })
}

/// The latest runs, newest first.
#[utoipa::path(get, path = "/runs", tag = "runs", params(Limit), responses((status = 200, body = [RunShape])))]
pub async fn list(State(app): State<Arc<App>>, InQuery(limit): InQuery<Limit>) -> Answer<Vec<RunShape>> {
    let runs = app.runs.latest(limit.limit.unwrap_or(100).min(MOST_RUNS)).await?;
    Ok(Json(runs.iter().map(RunShape::from).collect()))
}

/// A finished run: {codebase, campaign, `publish_status`}, or all of it.
#[utoipa::path(get, path = "/runs/{run_id}", tag = "runs", params(("run_id" = String, Path), Detail),
    responses((status = 200, body = RunShape), (status = 404, description = "text: no such run")))]
pub async fn show(State(app): State<Arc<App>>, InPath(id): InPath<RunId>, InQuery(detail): InQuery<Detail>) -> Result<Response, ApiError> {
    let run = app.runs.get(&id).await.map_err(no_such_run(&id))?;
    let full = detail.full.is_some_and(|full| full != 0);
    Ok(if full { Json(RunShape::from(&run)).into_response() } else { Json(brief(&run)).into_response() })
}

/// Notes whether a run's result is to be published.
#[utoipa::path(post, path = "/runs/{run_id}", tag = "runs", params(("run_id" = String, Path)), request_body = PublishStatusBody,
    responses((status = 200, body = PublishStatusShape), (status = 404, description = "text"), (status = 422)))]
pub async fn update(State(app): State<Arc<App>>, InPath(id): InPath<RunId>, Body(body): Body<PublishStatusBody>) -> Answer<PublishStatusShape> {
    let status = body.publish_status.parse()?;
    let run = app.runs.set_publish_status(&id, status).await.map_err(no_such_run(&id))?;
    Ok(Json(PublishStatusShape::from(&run)))
}

/// The names of a run's logs.
#[utoipa::path(get, path = "/log/{run_id}", tag = "runs", params(("run_id" = String, Path)),
    responses((status = 200, body = [String]), (status = 404, description = "text"), (status = 501, description = "text: the worker cannot be asked")))]
pub async fn logs(State(app): State<Arc<App>>, InPath(id): InPath<RunId>) -> Answer<Vec<String>> {
    Ok(Json(app.logs.list(&id).await.map_err(no_current_run(&id))?))
}

/// A log: the worker's while the run is active, the stored one after it.
#[utoipa::path(get, path = "/log/{run_id}/{name}", tag = "runs", params(("run_id" = String, Path), ("name" = String, Path)),
    responses((status = 200, body = String, content_type = "text/plain"), (status = 400, description = "text"), (status = 404, description = "text"), (status = 501, description = "text")))]
pub async fn log(State(app): State<Arc<App>>, InPath((id, name)): InPath<(RunId, String)>) -> Result<Response, ApiError> {
    check_file_name(&name).map_err(|e| ApiError::text(StatusCode::BAD_REQUEST, e.to_string()))?;
    let log = app.logs.open(&id, &name).await.map_err(no_current_run(&id))?;
    let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((plain, ResponseBody::from_stream(ReaderStream::new(log))).into_response())
}

/// Tells the worker to stop an active run.
#[utoipa::path(post, path = "/kill/{run_id}", tag = "active runs", params(("run_id" = String, Path)),
    responses((status = 200, body = ActiveRunShape), (status = 404, description = "text"), (status = 501, description = "text: it cannot be told")))]
pub async fn kill(State(app): State<Arc<App>>, InPath(id): InPath<RunId>) -> Answer<ActiveRunShape> {
    let run = app.logs.kill(&id).await.map_err(no_current_run(&id))?;
    Ok(Json(ActiveRunShape::new(&run, app.clock.now())))
}
