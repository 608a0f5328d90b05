//! Active runs: handing out, looking, finishing.

use super::{
    AppState,
    error::{ApiError, map_not_found},
    extract::{ApiResult, AppJson, AppPath, AppQuery},
    public::Login,
    upload::receive,
};
use crate::adapters::wire::{
    ActiveRunResponse, AssignmentRequest, AssignmentResponse, FinishResponse,
};
use crate::{
    domain::name::RunId,
    services::{
        ServiceError,
        finish::{Finishable, Finished},
    },
};
use axum::{
    Extension, Json,
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use futures::StreamExt;
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use utoipa::IntoParams;

fn no_such_run(id: &RunId) -> impl FnOnce(ServiceError) -> ApiError {
    map_not_found(ApiError::text(
        StatusCode::NOT_FOUND,
        format!("no such run {id}"),
    ))
}

/// Rate limits say when they end, in seconds.
fn cannot_assign(app: &AppState, error: ServiceError) -> ApiError {
    match error {
        ServiceError::RateLimited(until) => {
            let seconds = (until - app.clock.now()).num_seconds().max(1);
            ApiError::from(error).with_header(header::RETRY_AFTER, seconds)
        }
        error => error.into(),
    }
}

/// What runs now, the oldest first.
#[utoipa::path(get, path = "/active-runs", tag = "active runs", responses((status = 200, body = [ActiveRunResponse])))]
pub async fn list(State(app): State<Arc<AppState>>) -> ApiResult<Vec<ActiveRunResponse>> {
    Ok(Json(app.status_shape().await?.processing))
}

/// One active run.
#[utoipa::path(get, path = "/active-runs/{run_id}", tag = "active runs", params(("run_id" = String, Path)),
    responses((status = 200, body = ActiveRunResponse), (status = 404, description = "text: no such run")))]
pub async fn show(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<RunId>,
) -> ApiResult<ActiveRunResponse> {
    let run = app
        .overview
        .active_run(&id, None)
        .await
        .map_err(no_such_run(&id))?;
    Ok(Json(ActiveRunResponse::new(&run, app.clock.now())))
}

/// What would be handed out next. Nothing is claimed.
#[utoipa::path(get, path = "/active-runs/+peek", tag = "active runs",
    responses((status = 201, body = AssignmentResponse), (status = 503, description = "{reason: queue empty}"), (status = 429)))]
pub async fn peek(State(app): State<Arc<AppState>>) -> Result<Response, ApiError> {
    let assignment = app
        .assigner
        .peek()
        .await
        .map_err(|e| cannot_assign(&app, e))?;
    Ok((
        StatusCode::CREATED,
        Json(AssignmentResponse::new(assignment, false)),
    )
        .into_response())
}

/// How long to wait for work.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// Seconds, at most 50: when there is nothing to hand out, the request is held until there is.
    wait: Option<u64>,
}

async fn hand_out(
    app: &Arc<AppState>,
    body: Option<AssignmentRequest>,
    worker: Option<String>,
    base: &str,
    query: WaitQuery,
) -> Result<Response, ApiError> {
    let body = body.unwrap_or_default();
    let newer = body.is_newer_generation();
    let request = body.request(worker)?;
    let wait = Duration::from_secs(query.wait.unwrap_or(0));
    let assignment = app
        .long_poll
        .assign(request, wait)
        .await
        .map_err(|e| cannot_assign(app, e))?;
    let shape = AssignmentResponse::new(*assignment, newer);
    let location = [(header::LOCATION, format!("{base}/{}", shape.id))];
    Ok((StatusCode::CREATED, location, Json(shape)).into_response())
}

/// Hands out the next queue item.
#[utoipa::path(post, path = "/active-runs", tag = "active runs", params(WaitQuery), request_body = AssignmentRequest,
    responses((status = 201, body = AssignmentResponse), (status = 503, description = "{reason: queue empty}"), (status = 429, description = "{reason}; Retry-After")))]
pub async fn assign(
    State(app): State<Arc<AppState>>,
    AppQuery(query): AppQuery<WaitQuery>,
    AppJson(body): AppJson<Option<AssignmentRequest>>,
) -> Result<Response, ApiError> {
    hand_out(&app, body, None, "/active-runs", query).await
}

/// Hands out the next queue item to the worker that is logged in.
#[utoipa::path(post, path = "/runner/active-runs", tag = "workers", params(WaitQuery), request_body = AssignmentRequest,
    responses((status = 201, body = AssignmentResponse), (status = 401), (status = 503, description = "{reason: queue empty}"), (status = 429, description = "{reason}; Retry-After")))]
pub async fn assign_public(
    State(app): State<Arc<AppState>>,
    Extension(Login(worker)): Extension<Login>,
    AppQuery(query): AppQuery<WaitQuery>,
    AppJson(body): AppJson<Option<AssignmentRequest>>,
) -> Result<Response, ApiError> {
    hand_out(&app, body, Some(worker), "/runner/active-runs", query).await
}

/// An active run of the worker that is logged in.
#[utoipa::path(get, path = "/runner/active-runs/{run_id}", tag = "workers", params(("run_id" = String, Path)),
    responses((status = 200, body = ActiveRunResponse), (status = 401), (status = 403), (status = 404, description = "text: no such run")))]
pub async fn show_public(
    State(app): State<Arc<AppState>>,
    Extension(Login(worker)): Extension<Login>,
    AppPath(id): AppPath<RunId>,
) -> ApiResult<ActiveRunResponse> {
    let run = app
        .overview
        .active_run(&id, Some(&worker))
        .await
        .map_err(no_such_run(&id))?;
    Ok(Json(ActiveRunResponse::new(&run, app.clock.now())))
}

/// Reads what is left of a body, so that a client that is still sending gets to see the answer.
async fn drain(app: &AppState, request: Request) {
    let mut body = request.into_body().into_data_stream();
    let mut left = app.limits.upload;
    while let Some(Ok(chunk)) = body.next().await {
        left = left.saturating_sub(chunk.len() as u64);
        if left == 0 {
            return;
        }
    }
}

async fn finish_run(
    app: Arc<AppState>,
    id: RunId,
    worker: Option<String>,
    request: Request,
) -> Result<Finished, ApiError> {
    let no_such_run = || {
        map_not_found(ApiError::reason(
            StatusCode::NOT_FOUND,
            format!("no such run {id}"),
        ))
    };
    let held = match app
        .finisher
        .find(&id, worker.as_deref())
        .await
        .map_err(no_such_run())
    {
        Ok(Finishable::Active(held)) => *held,
        Ok(Finishable::Finished(run)) => {
            drain(&app, request).await;
            return Ok(Finished {
                run: *run,
                first_time: false,
            });
        }
        Err(refused) => {
            drain(&app, request).await;
            return Err(refused);
        }
    };
    let received = receive(&app, &held.run, request).await?;
    let finisher = app.finisher.clone();
    // On its own task: a client that goes away now does not stop half-way what is being stored.
    let finished = app
        .tasks
        .spawn(async move { finisher.finish(held, received.upload()).await });
    let finished = finished
        .await
        .map_err(|e| crate::ports::Fault::backend("finish a run", e))?;
    finished.map_err(no_such_run())
}

fn status(finished: &Finished) -> StatusCode {
    if finished.first_time {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    }
}

/// Stores a run's result: a multipart upload with `result.json`, logs and artifacts. Finishing again answers what was stored.
#[utoipa::path(post, path = "/active-runs/{run_id}/finish", tag = "active runs", params(("run_id" = String, Path)),
    request_body(content_type = "multipart/form-data", content = String),
    responses((status = 201, body = FinishResponse), (status = 200, body = FinishResponse, description = "it was finished before"),
        (status = 400, description = "text"), (status = 404, description = "{reason}"), (status = 413)))]
pub async fn finish(
    State(app): State<Arc<AppState>>,
    AppPath(id): AppPath<RunId>,
    request: Request,
) -> Result<Response, ApiError> {
    let location = format!("/runs/{id}");
    let finished = finish_run(app, id, None, request).await?;
    Ok((
        status(&finished),
        [(header::LOCATION, location)],
        Json(FinishResponse::from(&finished)),
    )
        .into_response())
}

/// Stores a run's result; only the worker that holds the run may.
#[utoipa::path(post, path = "/runner/active-runs/{run_id}/finish", tag = "workers", params(("run_id" = String, Path)),
    request_body(content_type = "multipart/form-data", content = String),
    responses((status = 201, body = FinishResponse), (status = 200, body = FinishResponse, description = "it was finished before"),
        (status = 400, description = "text"), (status = 401), (status = 403), (status = 404, description = "{reason}"), (status = 413)))]
pub async fn finish_public(
    State(app): State<Arc<AppState>>,
    Extension(Login(worker)): Extension<Login>,
    AppPath(id): AppPath<RunId>,
    request: Request,
) -> Result<Response, ApiError> {
    let finished = finish_run(app, id, Some(worker), request).await?;
    Ok((status(&finished), Json(FinishResponse::from(&finished))).into_response())
}
