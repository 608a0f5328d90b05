//! The worker's own HTTP server: which run it is on, its logs, and the order to stop.

use super::WorkerError;
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::{io::ReaderStream, sync::CancellationToken};

/// The run under way.
#[derive(Debug, Clone)]
pub(super) struct Current {
    pub(super) id: String,
    pub(super) logs: PathBuf,
    pub(super) stop: CancellationToken,
}

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Option<Current>>>);

/// The backchannel, listening.
#[derive(Debug)]
pub(super) struct Backchannel {
    address: SocketAddr,
    shared: Shared,
}

impl Shared {
    fn current(&self) -> Option<Current> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Backchannel {
    pub(super) async fn start(
        address: SocketAddr,
        end: CancellationToken,
    ) -> Result<Self, WorkerError> {
        let shared = Shared::default();
        let router = Router::new()
            .route("/log-id", get(log_id))
            .route("/logs", get(list))
            .route("/logs/{name}", get(read))
            .route("/kill", post(kill))
            .with_state(shared.clone());
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .map_err(WorkerError::io("listen for the backchannel"))?;
        let address = listener
            .local_addr()
            .map_err(WorkerError::io("listen for the backchannel"))?;
        tokio::spawn(async move {
            axum::serve(listener, router)
                .with_graceful_shutdown(end.cancelled_owned())
                .await
        });
        Ok(Self { address, shared })
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    pub(super) fn show(&self, current: Option<Current>) {
        *self.shared.0.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }
}

fn idle() -> Response {
    (StatusCode::NOT_FOUND, "no run is under way").into_response()
}

/// The id as text; empty while idle.
async fn log_id(State(shared): State<Shared>) -> String {
    shared
        .current()
        .map(|current| current.id)
        .unwrap_or_default()
}

async fn list(State(shared): State<Shared>) -> Response {
    let Some(current) = shared.current() else {
        return idle();
    };
    match super::log::names(&current.logs) {
        Ok(names) => Json(names).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn read(State(shared): State<Shared>, Path(name): Path<String>) -> Response {
    let Some(current) = shared.current() else {
        return idle();
    };
    if crate::domain::log_name::validate_file_name(&name).is_err() {
        return (StatusCode::BAD_REQUEST, "not the name of a log").into_response();
    }
    match tokio::fs::File::open(current.logs.join(&name)).await {
        Ok(file) => (
            [(header::CONTENT_TYPE, "text/plain")],
            Body::from_stream(ReaderStream::new(file)),
        )
            .into_response(),
        Err(_) => (StatusCode::NOT_FOUND, "no such log").into_response(),
    }
}

async fn kill(State(shared): State<Shared>) -> Response {
    let Some(current) = shared.current() else {
        return idle();
    };
    current.stop.cancel();
    current.id.into_response()
}
