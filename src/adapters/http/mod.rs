//! The way in: two listeners with their routes. Handlers take a request apart, call one service, and shape the answer;
//! `error.rs` alone knows statuses, `shapes/` the JSON.

mod active_runs;
mod catalog;
mod error;
mod extract;
mod health;
mod leases;
mod logs;
mod public;
mod queue;
mod restraints;
mod runs;
mod serve;
mod upload;
mod workers;

pub use serve::serve;

use crate::{
    adapters::local::Spool,
    metrics::Metrics,
    ports::Clock,
    services::{
        CoordinatorConfig, ServiceError, assign::Assigner, explain::Explainer, finish::Finisher,
        health::Health, ingest::Ingest, keepalive::Keepalive, live_log::LiveLogIngest, logs::Logs,
        long_poll::LongPoll, overview::Overview, parking::ParkedItems, pauses::Restraints,
        runs::Runs, schedule::Scheduler, watch::Watcher, workers::Workers,
    },
};
use axum::{
    Router,
    extract::{DefaultBodyLimit, MatchedPath, Request, State},
    http::{HeaderName, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use error::ApiError;
use serde::{Deserialize, Serialize};
use std::{any::Any, sync::Arc, time::Instant};
use tokio_util::task::TaskTracker;
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, RequestId, SetRequestIdLayer},
};
use tracing::Instrument;
use utoipa::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

/// What clients may send. Sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs)]
pub struct RequestLimits {
    pub json_body: u64,
    pub upload_file: u64,
    pub upload: u64,
    pub upload_files: u64,
    /// Seconds without a byte after which an upload is given up.
    pub upload_idle_seconds: u64,
}

/// What the handlers work with.
#[expect(missing_docs)]
pub struct AppState {
    pub overview: Arc<Overview>,
    pub assigner: Arc<Assigner>,
    pub finisher: Arc<Finisher>,
    pub ingest: Ingest,
    pub scheduler: Scheduler,
    pub runs: Runs,
    pub logs: Arc<Logs>,
    pub live_log: Arc<LiveLogIngest>,
    pub keepalive: Arc<Keepalive>,
    pub long_poll: Arc<LongPoll>,
    pub explainer: Explainer,
    pub parked: ParkedItems,
    pub restraints: Restraints,
    pub watcher: Arc<Watcher>,
    pub workers: Workers,
    pub health: Health,
    pub metrics: Arc<Metrics>,
    pub clock: Arc<dyn Clock>,
    pub config: Arc<CoordinatorConfig>,
    pub spool: Spool,
    pub limits: RequestLimits,
    /// What goes on when the client has gone; the process ends after it.
    pub tasks: TaskTracker,
}

impl AppState {
    async fn status_shape(&self) -> Result<crate::adapters::wire::StatusResponse, ServiceError> {
        Ok(crate::adapters::wire::StatusResponse::new(
            &self.overview.status().await?,
            self.config.watch.run_timeout,
        ))
    }
}

#[derive(OpenApi)]
#[openapi(info(
    title = "janitor-runner",
    description = "Coordinates automated code changes: decides what runs next, assigns it to workers, ingests their results.",
    license(name = "Apache-2.0")
))]
struct Description;

/// The routes for the operator's network, the site and the publisher.
pub fn admin(app: Arc<AppState>) -> Router {
    let (router, description) = OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(queue::status))
        .routes(routes!(queue::list))
        .routes(routes!(queue::position))
        .routes(routes!(queue::stats))
        .routes(routes!(queue::schedule))
        .routes(routes!(queue::schedule_control))
        .routes(routes!(catalog::codebases, catalog::upload_codebases))
        .routes(routes!(catalog::candidates, catalog::upload_candidates))
        .routes(routes!(catalog::delete_candidate))
        .routes(routes!(runs::list))
        .routes(routes!(runs::show, runs::update))
        .routes(routes!(logs::list))
        .routes(routes!(logs::show))
        .routes(routes!(logs::kill))
        .routes(routes!(
            restraints::pauses,
            restraints::pause,
            restraints::resume
        ))
        .routes(routes!(
            restraints::limits,
            restraints::limit,
            restraints::unlimit
        ))
        .routes(routes!(restraints::parked))
        .routes(routes!(restraints::release))
        .routes(routes!(restraints::explain))
        .routes(routes!(health::watchdog))
        .routes(routes!(active_runs::list, active_runs::assign))
        .routes(routes!(active_runs::peek))
        .routes(routes!(active_runs::show))
        .routes(routes!(active_runs::finish))
        .routes(routes!(leases::keepalive))
        .routes(routes!(leases::append_log))
        // Older clients of the unreleased port use this name.
        .route(
            "/active-runs/{run_id}/finish-multipart",
            axum::routing::post(active_runs::finish),
        )
        .routes(routes!(workers::busy))
        .routes(routes!(workers::list, workers::add))
        .routes(routes!(workers::remove))
        .routes(routes!(workers::rotate))
        .split_for_parts();
    let page = SwaggerUi::new("/docs").url(
        "/openapi.json",
        description.merge_from(public_routes().into_openapi()),
    );
    layered(router.merge(page), app)
}

fn public_routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(active_runs::assign_public))
        .routes(routes!(active_runs::show_public))
        .routes(routes!(active_runs::finish_public))
        .routes(routes!(leases::keepalive_public))
        .routes(routes!(leases::append_log_public))
        .route(
            "/runner/active-runs/{run_id}/finish-multipart",
            axum::routing::post(active_runs::finish_public),
        )
}

/// The routes for workers.
pub fn public(app: Arc<AppState>) -> Router {
    let (workers, _) = public_routes().split_for_parts();
    let workers = workers.route_layer(middleware::from_fn_with_state(
        app.clone(),
        public::require_login,
    ));
    let open = Router::new()
        .route("/", axum::routing::get(|| async { "" }))
        .route("/queue/stats", axum::routing::get(queue::stats_public));
    layered(workers.merge(open), app)
}

/// What holds for every route.
fn layered(router: Router<Arc<AppState>>, app: Arc<AppState>) -> Router {
    let request_id = HeaderName::from_static("x-request-id");
    router
        .fallback(|| async {
            ApiError::problem(StatusCode::NOT_FOUND, "there is nothing at this path")
        })
        .method_not_allowed_fallback(|| async {
            ApiError::problem(StatusCode::METHOD_NOT_ALLOWED, "not with this method")
        })
        // Handlers have limits of their own, from the settings.
        .layer(DefaultBodyLimit::disable())
        .layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| {
            ApiError::problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the runner has a defect; its log says more",
            )
            .into_response()
        }))
        .layer(middleware::from_fn_with_state(app.clone(), observe))
        .layer(PropagateRequestIdLayer::new(request_id.clone()))
        .layer(SetRequestIdLayer::new(request_id, MakeRequestUuid))
        .with_state(app)
}

fn named(route: Option<&MatchedPath>) -> &str {
    route.map_or("none", MatchedPath::as_str)
}

/// Counts and traces each request. Thousands may wait, so only what is needed for that is kept until the answer.
fn observe(
    State(app): State<Arc<AppState>>,
    request: Request,
    next: Next,
) -> impl Future<Output = Response> {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let id = request
        .extensions()
        .get::<RequestId>()
        .and_then(|id| id.header_value().to_str().ok())
        .unwrap_or_default();
    let trace = request
        .headers()
        .get("traceparent")
        .and_then(|t| t.to_str().ok())
        .unwrap_or_default();
    let span = tracing::info_span!("http.request.handle", http.method = %method, http.route = named(route.as_ref()), request.id = id, traceparent = trace);
    let answering = next.run(request).instrument(span.clone());
    async move {
        let response = answering.await;
        let status = response.status();
        app.metrics.answered(
            method.as_str(),
            named(route.as_ref()),
            status.as_u16(),
            started.elapsed(),
        );
        let length = response
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|l| l.to_str().ok())
            .unwrap_or_default();
        let milliseconds = started.elapsed().as_millis();
        tracing::debug!(parent: &span, http.status = status.as_u16(), http.length = length, milliseconds, "answered");
        response
    }
}
