//! A small forge for the example repositories: one of them has moved, and one is on a host that
//! limits the rate of requests at first.

use anyhow::{Context, Result};
use axum::{
    Router,
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{
    net::Ipv4Addr,
    path::{Component, PathBuf},
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};
use tokio_util::task::AbortOnDropHandle;

/// The name of the host that limits the rate.
pub(super) const LIMITED_HOST: &str = "localhost";
/// How long the host that limits the rate refuses requests, from the first on.
const LIMITED_TIME: Duration = Duration::from_secs(2);

/// Serves the files of repositories, as git reads them from any web server.
struct Files {
    /// The folder of the repositories.
    folder: PathBuf,
    port: u16,
    /// When the first request was refused.
    refused_since: OnceLock<Instant>,
}

/// The forge, which serves until this is dropped.
pub(super) struct Forge {
    port: u16,
    _task: AbortOnDropHandle<()>,
}

impl Forge {
    /// Starts to serve the repositories in a folder, to this machine only.
    pub(super) async fn start(folder: PathBuf) -> Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("listen for the forge of the demo")?;
        let port = listener.local_addr()?.port();
        let files = Files {
            folder,
            port,
            refused_since: OnceLock::new(),
        };
        let router = Router::new()
            .route("/git/{*path}", get(file))
            .route("/old/{*path}", get(moved))
            .route("/limited/{*path}", get(limited))
            .with_state(Arc::new(files));
        let task = tokio::spawn(async move {
            // It fails only with its listener; then the runs of the demo fail.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self {
            port,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// The git configuration with which no proxy is asked for the forge, which is on this machine.
    pub(super) fn git_config(&self) -> String {
        let without_proxy = |host| format!("[http \"http://{host}:{}\"]\n\tproxy =\n", self.port);
        ["127.0.0.1", LIMITED_HOST].map(without_proxy).concat()
    }

    /// The URL at which a repository is now, if it was moved.
    pub(super) fn new_url(&self, repository: &str) -> String {
        format!("http://127.0.0.1:{}/git/{repository}", self.port)
    }

    /// The URL from which a repository has moved.
    pub(super) fn old_url(&self, repository: &str) -> String {
        format!("http://127.0.0.1:{}/old/{repository}", self.port)
    }

    /// The URL of a repository on the host that limits the rate of requests, which has a name of its
    /// own.
    pub(super) fn limited_url(&self, repository: &str) -> String {
        format!("http://{LIMITED_HOST}:{}/limited/{repository}", self.port)
    }
}

async fn file(State(files): State<Arc<Files>>, Path(path): Path<String>) -> Response {
    let Some((repository, file)) = path.split_once('/') else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let file = PathBuf::from(repository).join(".git").join(file);
    let is_below = file
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    if !is_below {
        return StatusCode::NOT_FOUND.into_response();
    }
    match tokio::fs::read(files.folder.join(&file)).await {
        Ok(content) => ([(header::CONTENT_TYPE, "text/plain")], content).into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn moved(State(files): State<Arc<Files>>, Path(path): Path<String>) -> Response {
    let location = format!("http://127.0.0.1:{}/git/{path}", files.port);
    (
        StatusCode::MOVED_PERMANENTLY,
        [(header::LOCATION, location)],
    )
        .into_response()
}

async fn limited(files: State<Arc<Files>>, path: Path<String>) -> Response {
    let since = files.refused_since.get_or_init(Instant::now);
    if since.elapsed() < LIMITED_TIME {
        let wait = LIMITED_TIME.as_secs().to_string();
        return (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, wait)]).into_response();
    }
    file(files, path).await
}
