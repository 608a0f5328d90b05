//! The worker's own HTTP server, by which the runner asks for the current run and its logs, and
//! stops it.

use super::WorkerError;
use crate::{adapters::clock::RandomIds, ports::Ids};
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

/// The run that the worker is executing.
#[derive(Debug, Clone)]
pub(super) struct CurrentRun {
    /// The id of the run.
    pub(super) id: String,
    /// The folder of its logs.
    pub(super) logs: PathBuf,
    /// Cancelled when the run is to stop.
    pub(super) stop: CancellationToken,
}

#[derive(Debug, Clone, Default)]
struct SharedRun(Arc<Mutex<Option<CurrentRun>>>);

/// The backchannel, which is listening.
#[derive(Debug)]
pub(super) struct Backchannel {
    address: SocketAddr,
    /// The first part of each path, which only the runner learns: other users of this machine, and
    /// pages in browsers on it, can reach the address too.
    secret: String,
    current: SharedRun,
}

impl SharedRun {
    fn get(&self) -> Option<CurrentRun> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Backchannel {
    /// Starts the server, which runs until `end` is cancelled.
    ///
    /// # Errors
    ///
    /// Returns an error when the address cannot be listened on.
    pub(super) async fn start(
        address: SocketAddr,
        end: CancellationToken,
    ) -> Result<Self, WorkerError> {
        let current = SharedRun::default();
        let secret = RandomIds.fresh();
        let routes = Router::new()
            .route("/log-id", get(log_id))
            .route("/logs", get(list))
            .route("/logs/{name}", get(read))
            .route("/kill", post(kill))
            .with_state(current.clone());
        let router = Router::new().nest(&format!("/{secret}"), routes);
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
        Ok(Self {
            address,
            secret,
            current,
        })
    }

    /// Returns the URL of the server: at the address that it listens on, or at the one by which it
    /// is reached.
    pub(super) fn url(&self, reached_at: Option<&str>) -> String {
        let base = match reached_at {
            Some(url) => url.trim_end_matches('/').to_owned(),
            None => format!("http://{}", self.address),
        };
        format!("{base}/{}/", self.secret)
    }

    /// Sets which run the worker is executing.
    pub(super) fn set_current(&self, current: Option<CurrentRun>) {
        *self
            .current
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = current;
    }
}

fn idle() -> Response {
    (StatusCode::NOT_FOUND, "no run is active").into_response()
}

/// Returns the id of the current run as text; it is empty while there is none.
async fn log_id(State(current): State<SharedRun>) -> String {
    current.get().map(|current| current.id).unwrap_or_default()
}

async fn list(State(current): State<SharedRun>) -> Response {
    let Some(current) = current.get() else {
        return idle();
    };
    match super::log::names(&current.logs) {
        Ok(names) => Json(names).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn read(State(current): State<SharedRun>, Path(name): Path<String>) -> Response {
    let Some(current) = current.get() else {
        return idle();
    };
    if crate::domain::log_name::validate_file_name(&name).is_err() {
        return (StatusCode::BAD_REQUEST, "not the name of a log").into_response();
    }
    // A codemod may have put a link or a pipe there.
    match super::regular_file::open(&current.logs.join(&name)) {
        Ok(file) => (
            [(header::CONTENT_TYPE, "text/plain")],
            Body::from_stream(ReaderStream::new(tokio::fs::File::from_std(file))),
        )
            .into_response(),
        Err(_) => (StatusCode::NOT_FOUND, "no such log").into_response(),
    }
}

async fn kill(State(current): State<SharedRun>) -> Response {
    let Some(current) = current.get() else {
        return idle();
    };
    current.stop.cancel();
    current.id.into_response()
}
