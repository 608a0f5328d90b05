//! The HTTP API: the routes of the admin and the public listener.
//!
//! Handlers parse a request into domain types, call one service, and map the outcome to a
//! response. `error.rs` alone maps failures to statuses, `adapters/wire` has the JSON. A new
//! endpoint gets a handler in the file of its resource and a line in `operator_routes`, or in
//! `worker_routes` if workers call it too.

mod active_runs;
mod audit;
mod caller;
mod catalog;
mod client_address;
mod connections;
mod describe;
mod detached;
mod error;
mod extract;
mod guard;
mod health;
mod hosts;
mod keepalive;
mod limits;
mod lines;
mod listener;
mod live_logs;
mod logs;
mod multipart;
mod observe;
mod page;
mod parked;
mod pauses;
mod public;
mod queue;
mod refusals;
mod resume;
mod runs;
mod security;
mod serve;
mod tls;
mod tokens;
mod unread;
mod upload;
mod uploads;
mod watchdog;
mod workers;

pub use connections::ConnectionLimits;
pub use listener::{Address, Listener, Socket};
pub use serve::serve;
pub use tls::TlsFiles;
pub use uploads::Uploads;

use crate::{
    adapters::{local::Spool, wire::StatusResponse},
    domain::{access::AdminToken, caller::Caller},
    metrics::Metrics,
    ports::Clock,
    services::{
        CoordinatorConfig, ServiceError, assign::Assigner, audit::Audit, explain::Explainer,
        finish::Finisher, health::Health, ingest::Ingest, keepalive::Keepalive, limits::Limits,
        live_log::LiveLogIngest, logins::Logins, logs::Logs, long_poll::LongPoll,
        overview::Overview, parking::ParkedItems, pauses::Pauses, resumes::Resumes, runs::Runs,
        schedule::Scheduler, watch::Watcher, worker_limits::WorkerLimits, workers::Workers,
    },
};
use axum::{
    Extension, Router,
    extract::DefaultBodyLimit,
    http::{HeaderName, StatusCode},
    middleware,
    response::IntoResponse,
    routing::{get, post},
};
use error::ApiError;
use guard::Guard;
use ipnet::IpNet;
use refusals::Refusals;
use serde::{Deserialize, Serialize};
use std::{any::Any, sync::Arc, time::Duration};
use tower_http::{
    catch_panic::CatchPanicLayer,
    request_id::{MakeRequestUuid, PropagateRequestIdLayer, SetRequestIdLayer},
};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::SwaggerUi;

/// The prefix of the workers' routes on the public listener.
const WORKER_PREFIX: &str = "/runner";

/// The limits on what clients may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestLimits {
    /// The maximum size of a JSON body, in bytes.
    pub json_body: u64,
    /// The maximum size of the report of an upload, in bytes.
    pub report: u64,
    /// The maximum size of one uploaded file, in bytes.
    pub upload_file: u64,
    /// The maximum size of an upload, in bytes.
    pub upload: u64,
    /// The maximum size of all uploads that are being received, in bytes.
    pub uploads: u64,
    /// The same of one worker.
    pub uploads_of_worker: u64,
    /// The maximum number of files in an upload.
    pub upload_files: u64,
    /// Seconds without a byte after which a body is aborted.
    pub upload_idle_seconds: u64,
    /// Milliseconds by which a response to a client is delayed that is refused again at once.
    pub refusal_delay_milliseconds: u64,
    /// The maximum number of responses that are delayed at the same time.
    pub max_delayed_refusals: u64,
}

impl RequestLimits {
    /// Returns how long a body may pause.
    fn idle(&self) -> Duration {
        Duration::from_secs(self.upload_idle_seconds)
    }
}

/// The use cases, and whatever else handlers work with.
pub struct AppState {
    /// Reads the queue and the active runs.
    pub overview: Arc<Overview>,
    /// Assigns queue items.
    pub assigner: Arc<Assigner>,
    /// Finishes runs.
    pub finisher: Arc<Finisher>,
    /// Stores codebases and candidates.
    pub ingest: Ingest,
    /// Schedules runs by hand.
    pub scheduler: Scheduler,
    /// Reads finished runs.
    pub runs: Runs,
    /// Looks up what runs resumed from.
    pub resumes: Resumes,
    /// Reads logs, and kills runs.
    pub logs: Arc<Logs>,
    /// Accepts logs of active runs.
    pub live_log: Arc<LiveLogIngest>,
    /// Records heartbeats.
    pub keepalive: Arc<Keepalive>,
    /// Assigns queue items as soon as there are some.
    pub long_poll: Arc<LongPoll>,
    /// Explains why an item is not assigned.
    pub explainer: Explainer,
    /// Lists and unparks parked items.
    pub parked: ParkedItems,
    /// Sets and ends pauses.
    pub pauses: Pauses,
    /// Sets and removes concurrency limits.
    pub limits: Limits,
    /// Watches the active runs.
    pub watcher: Arc<Watcher>,
    /// Keeps the workers' accounts.
    pub workers: Workers,
    /// Checks the adapters in use.
    pub health: Health,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The source of the time.
    pub clock: Arc<dyn Clock>,
    /// The settings of the use cases.
    pub config: Arc<CoordinatorConfig>,
    /// The folder for the files of uploads.
    pub spool: Spool,
    /// The logins of workers.
    pub logins: Arc<Logins>,
    /// What one worker may use.
    pub worker_limits: Arc<WorkerLimits>,
    /// The limits on what clients may send.
    pub request_limits: RequestLimits,
    /// The uploads that are being received.
    pub uploads: Arc<Uploads>,
    /// Who may use the admin API.
    pub admin_access: AdminAccess,
    /// The networks of proxies, which say for whom they send a request.
    pub trusted_proxies: Vec<IpNet>,
    /// Keeps the audit log.
    pub audit: Arc<Audit>,
}

/// Who may use the admin API.
#[derive(Debug, Clone, Default)]
pub struct AdminAccess {
    /// The names by which it is reached, besides addresses and names of one label; `*.NAME` means
    /// every name below.
    pub hosts: Vec<String>,
    /// The tokens; without any, every request may do everything.
    pub tokens: Vec<AdminToken>,
}

impl AppState {
    /// Returns the response for the active runs and the hosts from which nothing is assigned.
    ///
    /// # Errors
    ///
    /// When a store fails.
    async fn status_response(&self) -> Result<StatusResponse, ServiceError> {
        Ok(StatusResponse::new(
            &self.overview.status().await?,
            self.config.watch.run_timeout,
        ))
    }
}

/// The routes that only operators have.
fn operator_routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::with_openapi(describe::base())
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(watchdog::watchdog))
        .routes(routes!(queue::status))
        .routes(routes!(queue::list))
        .routes(routes!(queue::position))
        .routes(routes!(queue::stats))
        .routes(routes!(queue::explain))
        .routes(routes!(queue::schedule))
        .routes(routes!(queue::schedule_control))
        .routes(routes!(catalog::codebases, catalog::upload_codebases))
        .routes(routes!(catalog::candidates, catalog::upload_candidates))
        .routes(routes!(catalog::delete_candidate))
        .routes(routes!(runs::list))
        .routes(routes!(runs::show, runs::update))
        .routes(routes!(resume::check))
        .routes(routes!(resume::chain))
        .routes(routes!(resume::descendants))
        .routes(routes!(resume::validate))
        .routes(routes!(logs::list))
        .routes(routes!(logs::show))
        .routes(routes!(pauses::list, pauses::pause, pauses::unpause))
        .routes(routes!(limits::list, limits::set, limits::remove))
        .routes(routes!(limits::end_backoff))
        .routes(routes!(parked::list))
        .routes(routes!(parked::unpark))
        .routes(routes!(active_runs::list))
        .routes(routes!(active_runs::peek))
        .routes(routes!(active_runs::kill))
        .routes(routes!(workers::busy))
        .routes(routes!(workers::list, workers::add))
        .routes(routes!(workers::remove))
        .routes(routes!(workers::rotate))
        .routes(routes!(audit::list))
        .routes(routes!(security::stats))
}

/// The routes that workers have on the public listener, and operators on the admin listener.
fn worker_routes() -> OpenApiRouter<Arc<AppState>> {
    OpenApiRouter::new()
        .routes(routes!(active_runs::assign))
        .routes(routes!(active_runs::show))
        .routes(routes!(active_runs::finish))
        .routes(routes!(keepalive::keepalive))
        .routes(routes!(live_logs::append))
        // Older clients of the unreleased port use this name.
        .route(
            "/active-runs/{run_id}/finish-multipart",
            post(active_runs::finish),
        )
}

/// Returns the routes for the operator's network, the site and the publisher.
pub fn admin(app: Arc<AppState>) -> Router {
    // Not around what workers do: a request that waits must end with its connection.
    let recorded = middleware::from_fn_with_state(app.clone(), audit::record);
    let (router, description) = operator_routes()
        .route_layer(recorded)
        .merge(worker_routes())
        .split_for_parts();
    let public = OpenApiRouter::new().nest(WORKER_PREFIX, worker_routes());
    let public = describe::require_login(public.into_openapi());
    let description = describe::require_token(description).merge_from(public);
    let docs = SwaggerUi::new("/docs")
        .url("/openapi.json", description)
        // Else the page may send the description to a validator on another host.
        .config(utoipa_swagger_ui::Config::default().validator_url("none"));
    let router = router.route_layer(Extension(Caller::Operator));
    let router = with_delayed_refusals(router, &app);
    let guard = Guard::admin(&app.trusted_proxies, &app.admin_access);
    with_layers(router.merge(docs), app, guard)
}

/// Returns the routes for workers.
pub fn public(app: Arc<AppState>) -> Router {
    let (workers, _) = OpenApiRouter::new()
        .nest(WORKER_PREFIX, worker_routes())
        .split_for_parts();
    let workers = workers.route_layer(middleware::from_fn_with_state(
        app.clone(),
        public::require_login,
    ));
    // Around the login, whose refusals are delayed too.
    let workers = with_delayed_refusals(workers, &app);
    let open = Router::new()
        .route("/", get(|| async { "" }))
        .route("/queue/stats", get(queue::stats_public));
    let guard = Guard::public(&app.trusted_proxies);
    with_layers(workers.merge(open), app, guard)
}

/// Adds the delay of responses to clients that are refused and ask again at once.
fn with_delayed_refusals(router: Router<Arc<AppState>>, app: &AppState) -> Router<Arc<AppState>> {
    let refusals = Arc::new(Refusals::new(&app.request_limits));
    router.route_layer(middleware::from_fn_with_state(refusals, refusals::delay))
}

/// Adds what holds for every route: failures for unknown paths and methods, the guard, request ids,
/// metrics.
fn with_layers(router: Router<Arc<AppState>>, app: Arc<AppState>, guard: Guard) -> Router {
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
        // Inside of the metrics and the request id, which a response to a panic needs too.
        .layer(CatchPanicLayer::custom(|_: Box<dyn Any + Send>| {
            ApiError::defect().into_response()
        }))
        .layer(middleware::from_fn_with_state(
            Arc::new(guard),
            guard::guard,
        ))
        .layer(middleware::from_fn_with_state(
            app.clone(),
            observe::observe,
        ))
        .layer(PropagateRequestIdLayer::new(request_id.clone()))
        .layer(SetRequestIdLayer::new(request_id, MakeRequestUuid))
        .with_state(app)
}
