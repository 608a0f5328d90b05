//! Workers and their accounts.

use super::{
    AppState,
    audit::{Audited, AuditedResult},
    error::ApiError,
    extract::{ApiResult, AppJson, AppPath, AppQuery},
    page::page_size,
};
use crate::{
    adapters::wire::{AccountsResponse, NewWorkerRequest, PasswordResponse, WorkersResponse},
    domain::audit::{Action, Change},
    services::workers::WorkerState,
};
use axum::{Json, extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::IntoParams;

/// Selects a page of the workers.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WorkersQuery {
    /// The maximum number of workers: 1 to 1000, 100 when absent.
    limit: Option<usize>,
    /// The field `next` of the page before.
    cursor: Option<String>,
}

/// Selects whether a busy worker may be removed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ForceQuery {
    /// `1`: remove it even if it holds a run.
    force: Option<u8>,
}

impl WorkersQuery {
    /// Returns the selected workers, and the cursor of the next page.
    fn page(self, workers: Vec<WorkerState>) -> (Vec<WorkerState>, Option<String>) {
        let limit = page_size(self.limit);
        let is_after_cursor = |worker: &WorkerState| {
            self.cursor
                .as_ref()
                .is_none_or(|cursor| worker.account.name > *cursor)
        };
        // One more than is requested says whether there is a next page.
        let mut page: Vec<_> = workers
            .into_iter()
            .filter(is_after_cursor)
            .take(limit + 1)
            .collect();
        let more = page.len() > limit;
        page.truncate(limit);
        let next = page
            .last()
            .filter(|_| more)
            .map(|worker| worker.account.name.clone());
        (page, next)
    }
}

/// Lists the workers, and which of them are busy.
#[utoipa::path(
    get,
    path = "/workers",
    tag = "admin",
    params(WorkersQuery),
    responses((status = 200, body = WorkersResponse))
)]
pub async fn busy(
    State(app): State<Arc<AppState>>,
    AppQuery(query): AppQuery<WorkersQuery>,
) -> ApiResult<WorkersResponse> {
    let workers = app.workers.list().await?;
    let total = workers.len();
    let active = workers
        .iter()
        .filter(|worker| !worker.holds.is_empty())
        .count();
    let (page, next) = query.page(workers);
    Ok(Json(WorkersResponse::new(page, next, total, active)))
}

/// Lists the workers' accounts.
#[utoipa::path(
    get,
    path = "/admin/workers",
    tag = "admin",
    params(WorkersQuery),
    responses((status = 200, body = AccountsResponse))
)]
pub async fn list(
    State(app): State<Arc<AppState>>,
    AppQuery(query): AppQuery<WorkersQuery>,
) -> ApiResult<AccountsResponse> {
    let (page, next) = query.page(app.workers.list().await?);
    Ok(Json(AccountsResponse::new(page, next)))
}

/// Adds a worker. A generated password is returned only here.
#[utoipa::path(
    post,
    path = "/admin/workers",
    tag = "admin",
    request_body = NewWorkerRequest,
    responses((status = 201, body = PasswordResponse), (status = 409), (status = 422))
)]
pub async fn add(
    State(app): State<Arc<AppState>>,
    AppJson(body): AppJson<NewWorkerRequest>,
) -> Result<Audited<(StatusCode, Json<PasswordResponse>)>, ApiError> {
    let change =
        Change::new(Action::AddWorker, &body.name).after(json!({ "link": body.link.clone() }));
    let password = app
        .workers
        .add(&body.name, body.password, body.link)
        .await?;
    let name = body.name;
    let response = (
        StatusCode::CREATED,
        Json(PasswordResponse { name, password }),
    );
    Ok(Audited(response, vec![change]))
}

/// Removes a worker; one that holds a run only with `force=1`.
#[utoipa::path(
    delete,
    path = "/admin/workers/{name}",
    tag = "admin",
    params(("name" = String, Path), ForceQuery),
    responses((status = 200, description = "{}"), (status = 404), (status = 409))
)]
pub async fn remove(
    State(app): State<Arc<AppState>>,
    AppPath(name): AppPath<String>,
    AppQuery(query): AppQuery<ForceQuery>,
) -> AuditedResult<Value> {
    let force = query.force.is_some_and(|force| force != 0);
    app.workers.remove(&name, force).await?;
    let change = Change::new(Action::RemoveWorker, &name).before(json!({ "forced": force }));
    Ok(Audited(Json(json!({})), vec![change]))
}

/// Replaces the password of a worker by a generated one.
#[utoipa::path(
    post,
    path = "/admin/workers/{name}/rotate",
    tag = "admin",
    params(("name" = String, Path)),
    responses((status = 200, body = PasswordResponse), (status = 404))
)]
pub async fn rotate(
    State(app): State<Arc<AppState>>,
    AppPath(name): AppPath<String>,
) -> AuditedResult<PasswordResponse> {
    let password = Some(app.workers.rotate(&name).await?);
    let change = Change::new(Action::RotateWorker, &name);
    Ok(Audited(
        Json(PasswordResponse { name, password }),
        vec![change],
    ))
}
