//! Workers and their accounts.

use super::{
    AppState,
    error::ApiError,
    extract::{ApiResult, AppJson, AppPath, AppQuery},
};
use crate::adapters::wire::{
    AccountResponse, AccountsResponse, NewWorkerRequest, PasswordResponse,
};
use crate::{domain::time::iso, services::workers::WorkerState};
use axum::{Json, extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};

const PAGE: usize = 100;
const LARGEST_PAGE: usize = 1000;

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Page {
    limit: Option<usize>,
    /// `next` of the page before.
    cursor: Option<String>,
}

/// A worker, and whether it is busy.
#[derive(Debug, Serialize, ToSchema)]
struct BusyResponse {
    name: String,
    /// `active` or `idle`.
    status: &'static str,
}

/// All workers.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkersResponse {
    workers: Vec<BusyResponse>,
    total: usize,
    active: usize,
    idle: usize,
    /// The cursor of the next page.
    next: Option<String>,
}

/// Whether even a busy worker goes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Force {
    force: Option<u8>,
}

impl Page {
    /// That part of the workers, and where the next begins.
    fn of(self, workers: Vec<WorkerState>) -> (Vec<WorkerState>, Option<String>) {
        let limit = self.limit.unwrap_or(PAGE).clamp(1, LARGEST_PAGE);
        let after = |worker: &WorkerState| {
            self.cursor
                .as_ref()
                .is_none_or(|cursor| worker.account.name > *cursor)
        };
        let mut page: Vec<_> = workers.into_iter().filter(after).take(limit + 1).collect();
        let more = page.len() > limit;
        page.truncate(limit);
        let next = page
            .last()
            .filter(|_| more)
            .map(|worker| worker.account.name.clone());
        (page, next)
    }
}

/// Which workers are busy.
#[utoipa::path(get, path = "/workers", tag = "admin", params(Page), responses((status = 200, body = WorkersResponse)))]
pub async fn busy(
    State(app): State<Arc<AppState>>,
    AppQuery(page): AppQuery<Page>,
) -> ApiResult<WorkersResponse> {
    let all = app.workers.list().await?;
    let (total, active) = (
        all.len(),
        all.iter().filter(|worker| !worker.holds.is_empty()).count(),
    );
    let (page, next) = page.of(all);
    let status = |worker: &WorkerState| {
        if worker.holds.is_empty() {
            "idle"
        } else {
            "active"
        }
    };
    let workers = page
        .into_iter()
        .map(|worker| BusyResponse {
            status: status(&worker),
            name: worker.account.name,
        })
        .collect();
    Ok(Json(WorkersResponse {
        workers,
        total,
        active,
        idle: total - active,
        next,
    }))
}

/// The workers' accounts.
#[utoipa::path(get, path = "/admin/workers", tag = "admin", params(Page), responses((status = 200, body = AccountsResponse)))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    AppQuery(page): AppQuery<Page>,
) -> ApiResult<AccountsResponse> {
    let (page, next) = page.of(app.workers.list().await?);
    let workers = page.into_iter().map(|worker| AccountResponse {
        name: worker.account.name,
        link: worker.account.link,
        runs: worker.holds.iter().map(ToString::to_string).collect(),
        last_seen: worker.account.last_seen.map(iso),
        failures: worker.account.failures,
        paused: worker.pause.map(Into::into),
    });
    Ok(Json(AccountsResponse {
        workers: workers.collect(),
        next,
    }))
}

/// Adds a worker; a password that is made is shown this once.
#[utoipa::path(post, path = "/admin/workers", tag = "admin", request_body = NewWorkerRequest,
    responses((status = 201, body = PasswordResponse), (status = 409), (status = 422)))]
pub async fn add(
    State(app): State<Arc<AppState>>,
    AppJson(body): AppJson<NewWorkerRequest>,
) -> Result<(StatusCode, Json<PasswordResponse>), ApiError> {
    let password = app
        .workers
        .add(&body.name, body.password, body.link)
        .await?;
    Ok((
        StatusCode::CREATED,
        Json(PasswordResponse {
            name: body.name,
            password,
        }),
    ))
}

/// Takes a worker away; one that holds a run only with `force=1`.
#[utoipa::path(delete, path = "/admin/workers/{name}", tag = "admin", params(("name" = String, Path), Force),
    responses((status = 200, description = "{}"), (status = 404), (status = 409)))]
pub async fn remove(
    State(app): State<Arc<AppState>>,
    AppPath(name): AppPath<String>,
    AppQuery(force): AppQuery<Force>,
) -> ApiResult<Value> {
    app.workers
        .remove(&name, force.force.is_some_and(|force| force != 0))
        .await?;
    Ok(Json(json!({})))
}

/// Gives a worker a new password.
#[utoipa::path(post, path = "/admin/workers/{name}/rotate", tag = "admin", params(("name" = String, Path)),
    responses((status = 200, body = PasswordResponse), (status = 404)))]
pub async fn rotate(
    State(app): State<Arc<AppState>>,
    AppPath(name): AppPath<String>,
) -> ApiResult<PasswordResponse> {
    let password = Some(app.workers.rotate(&name).await?);
    Ok(Json(PasswordResponse { name, password }))
}
