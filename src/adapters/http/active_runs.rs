//! Active runs: assigning, listing, killing and finishing them.

use super::{
    AppState,
    audit::Audited,
    error::{ApiError, map_not_found},
    extract::{AnyTypeJson, ApiResult, AppPath, AppQuery},
    logs::no_current_run,
    public::check_again,
    upload::receive,
};
use crate::{
    adapters::wire::{ActiveRunResponse, AssignmentRequest, AssignmentResponse, FinishResponse},
    domain::{
        audit::{Action, Change},
        caller::Caller,
        name::RunId,
    },
    services::{
        ServiceError,
        finish::{Finishable, Finished},
        logins::Login,
    },
};
use axum::{
    Extension, Json,
    body::BodyDataStream,
    extract::{Request, State},
    http::{StatusCode, header, request},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use utoipa::IntoParams;

fn no_such_run(id: &RunId) -> impl FnOnce(ServiceError) -> ApiError {
    map_not_found(ApiError::text(
        StatusCode::NOT_FOUND,
        format!("no such run {id}"),
    ))
}

/// Adds the seconds after which a rate limit ends.
fn cannot_assign(app: &AppState, error: ServiceError) -> ApiError {
    match error {
        ServiceError::RateLimited(until) => {
            let seconds = (until - app.clock.now()).num_seconds().max(1);
            ApiError::from(error).with_header(header::RETRY_AFTER, seconds)
        }
        error => error.into(),
    }
}

/// Lists the active runs, the oldest first.
#[utoipa::path(
    get,
    path = "/active-runs",
    tag = "active runs",
    responses((status = 200, body = [ActiveRunResponse]))
)]
pub async fn list(State(app): State<Arc<AppState>>) -> ApiResult<Vec<ActiveRunResponse>> {
    Ok(Json(app.status_response().await?.processing))
}

/// Returns an active run.
#[utoipa::path(
    get,
    path = "/active-runs/{run_id}",
    tag = "active runs",
    params(("run_id" = String, Path)),
    responses(
        (status = 200, body = ActiveRunResponse),
        (status = 404, description = "text: no such run"),
    )
)]
pub async fn show(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    AppPath(id): AppPath<RunId>,
) -> ApiResult<ActiveRunResponse> {
    let run = app
        .overview
        .active_run(&id, &caller)
        .await
        .map_err(no_such_run(&id))?;
    Ok(Json(ActiveRunResponse::new(&run, app.clock.now())))
}

/// Returns what would be assigned next, without claiming it.
#[utoipa::path(
    get,
    path = "/active-runs/+peek",
    tag = "active runs",
    responses(
        (status = 201, body = AssignmentResponse),
        (status = 503, description = "{reason: queue empty}"),
        (status = 429),
    )
)]
pub async fn peek(State(app): State<Arc<AppState>>) -> Result<Response, ApiError> {
    let assignment = app
        .assigner
        .peek()
        .await
        .map_err(|error| cannot_assign(&app, error))?;
    let response = AssignmentResponse::new(assignment, false);
    let location = [(header::LOCATION, format!("/active-runs/{}", response.id))];
    Ok((StatusCode::CREATED, location, Json(response)).into_response())
}

/// Bounds the time for which a request waits.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// Long polling: the maximum number of seconds, up to 50, for which the request is held while
    /// there is nothing to assign.
    wait: Option<u64>,
}

/// Assigns the next queue item.
///
/// On the public API the worker is the one that has logged in; on the admin API it is the one that
/// the body names.
#[utoipa::path(
    post,
    path = "/active-runs",
    tag = "active runs",
    params(WaitQuery),
    request_body = AssignmentRequest,
    responses(
        (status = 201, body = AssignmentResponse),
        (status = 503, description = "{reason}: queue empty, or why the worker is paused"),
        (status = 429, description = "{reason}; Retry-After: all hosts are rate limited, or the worker \
          has as many runs as it may have"),
    )
)]
pub async fn assign(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    AppQuery(query): AppQuery<WaitQuery>,
    login: Option<Extension<Login>>,
    AnyTypeJson(body): AnyTypeJson<Option<AssignmentRequest>>,
) -> Result<Response, ApiError> {
    let body = body.unwrap_or_default();
    let newer = body.is_newer_generation();
    // Each listener serves the run at a path of its own.
    let base = match caller {
        Caller::Operator => "/active-runs",
        Caller::Worker(_) => "/runner/active-runs",
    };
    let request = body.request(caller)?;
    let wait = Duration::from_secs(query.wait.unwrap_or(0));
    let assignment = app
        .long_poll
        .assign(request, wait)
        .await
        .map_err(|error| cannot_assign(&app, error))?;
    if let Err(refusal) = check_again(&app, login.as_deref()).await {
        app.workers.release(&assignment.run).await?;
        return Err(refusal);
    }
    let response = AssignmentResponse::new(*assignment, newer);
    let location = [(header::LOCATION, format!("{base}/{}", response.id))];
    Ok((StatusCode::CREATED, location, Json(response)).into_response())
}

/// Kills an active run.
///
/// Its claim is marked, which its worker reads with the next keepalive; a worker with a
/// backchannel is notified at once.
#[utoipa::path(
    post,
    path = "/kill/{run_id}",
    tag = "active runs",
    params(("run_id" = String, Path)),
    responses(
        (status = 200, body = ActiveRunResponse),
        (status = 404, description = "text"),
        (status = 501, description = "text: its worker cannot be notified, but the claim is marked"),
        (status = 504, description = "text: its worker was not reached, but the claim is marked"),
    )
)]
pub async fn kill(State(app): State<Arc<AppState>>, AppPath(id): AppPath<RunId>) -> Response {
    let killed = app.logs.kill(&id).await;
    // The claim is marked also when its worker was not reached.
    let is_marked = match &killed {
        Ok(_) => true,
        Err(error) => error.is_about_worker(),
    };
    let change = Change::new(Action::KillRun, id.to_string());
    let changes = if is_marked { vec![change] } else { vec![] };
    let response = killed
        .map(|run| Json(ActiveRunResponse::new(&run, app.clock.now())))
        .map_err(no_current_run(&id));
    Audited(response, changes).into_response()
}

async fn finish_run(
    app: &Arc<AppState>,
    id: &RunId,
    caller: &Caller,
    head: &request::Parts,
    body: &mut BodyDataStream,
) -> Result<Finished, ApiError> {
    let login = head.extensions.get::<Login>();
    let no_such_run = || {
        map_not_found(ApiError::reason(
            StatusCode::NOT_FOUND,
            format!("no such run {id}"),
        ))
    };
    match app.finisher.find(id, caller).await {
        Ok(Finishable::Active(held)) => {
            let mut upload = receive(app, &held.run, &head.headers, body).await?;
            check_again(app, login).await?;
            let refusal = upload.refusal.take();
            let finished = app.finisher.finish(*held, upload).await;
            let finished = finished.map_err(no_such_run())?;
            // The worker would send the same again: what has arrived is stored first.
            refusal.map_or(Ok(finished), Err)
        }
        Ok(Finishable::Finished(run)) => Ok(Finished {
            run: *run,
            first_time: false,
        }),
        Err(error) => Err(no_such_run()(error)),
    }
}

/// Finishes a run: stores its result.
///
/// The body is a multipart upload with `result.json`, logs and artifacts. A run that is finished
/// already stays as it is, and is returned. On the public API only the worker that holds a run may
/// finish it.
#[utoipa::path(
    post,
    path = "/active-runs/{run_id}/finish",
    tag = "active runs",
    params(("run_id" = String, Path)),
    request_body(content_type = "multipart/form-data", content = String),
    responses(
        (status = 201, body = FinishResponse),
        (status = 200, body = FinishResponse, description = "it was finished before"),
        (status = 400, description = "text"),
        (status = 404, description = "{reason}"),
        (status = 413),
    )
)]
pub async fn finish(
    State(app): State<Arc<AppState>>,
    caller: Caller,
    AppPath(id): AppPath<RunId>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = request.into_parts();
    let mut body = body.into_data_stream();
    let finished = finish_run(&app, &id, &caller, &head, &mut body).await?;
    let status = match finished.first_time {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    // Workers have no access to finished runs.
    let location =
        (caller == Caller::Operator).then(|| [(header::LOCATION, format!("/runs/{id}"))]);
    Ok((status, location, Json(FinishResponse::from(&finished))).into_response())
}
