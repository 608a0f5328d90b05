//! Connections. Thousands of workers may wait, so that a waiting connection must be small: HTTP/1
//! without the parts that other versions and upgrades would need, which are a third of its memory.

use super::{
    RequestLimits,
    connections::{ConnectionLimits, Connections, SWEEP_INTERVAL},
    detached::Detached,
    listener::{Listener, Stream, encrypt},
};
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use std::{
    error::Error,
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_io_timeout::TimeoutWriter;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The delay after a failure to accept connections, for want of file descriptors for example.
const RETRY_DELAY: Duration = Duration::from_millis(100);

/// How long a client may read nothing of a response before its connection is closed.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long connections that were accepted last have to send their request, before those without one
/// are closed.
const LAST_REQUEST_DELAY: Duration = Duration::from_millis(200);

/// Returns whether only that one connection failed, and the next one may be accepted at once.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

async fn accept(listener: &Listener, connections: &Connections) -> (Stream, Option<SocketAddr>) {
    loop {
        // Those that come too early wait in the listener's backlog, and none is refused.
        connections.has_place().await;
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(RETRY_DELAY).await;
            }
        }
    }
}

/// Closes connections that wait for a request for too long, until it is dropped.
async fn sweep(connections: Arc<Connections>) {
    loop {
        tokio::time::sleep(SWEEP_INTERVAL).await;
        connections.sweep(Instant::now());
    }
}

/// Serves until `end` is cancelled; then accepts no connection any more, and waits until every
/// request has its response. Uploads run on `tasks`, and go on when their clients have left.
pub async fn serve(
    listener: Listener,
    router: Router,
    (limits, request_limits): (ConnectionLimits, RequestLimits),
    tasks: TaskTracker,
    end: CancellationToken,
) {
    let graceful = GracefulShutdown::new();
    let service = Detached::new(router, tasks, request_limits);
    let connections = Connections::new(limits);
    let sweeper = tokio::spawn(sweep(connections.clone()));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(None);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = accept(&listener, &connections) => accepted,
            () = end.cancelled() => break,
        };
        let Some(connection) = connections.admit(peer.map(|peer| peer.ip())) else {
            tracing::debug!(address = ?peer, "a connection is one too many of its address");
            continue;
        };
        let service = service.of(connection.clone(), peer);
        let (watcher, http, tls) = (graceful.watcher(), http.clone(), listener.tls());
        tokio::spawn(async move {
            let served = async {
                let stream = encrypt(stream, tls).await?;
                let mut stream = TimeoutWriter::new(stream);
                stream.set_timeout(Some(WRITE_TIMEOUT));
                let io = TokioIo::new(Box::pin(stream));
                watcher.watch(http.serve_connection(io, service)).await?;
                Ok::<(), Box<dyn Error + Send + Sync>>(())
            };
            let served = tokio::select! {
                served = served => served,
                () = connection.closed() => return,
            };
            if let Err(error) = served {
                tracing::debug!(%error, "a connection failed");
            }
        });
    }
    drop(listener);
    // Shutting down closes connections that have sent nothing yet. To a client that has just
    // connected that is the same as being refused, and some throw a result away then.
    tokio::time::sleep(LAST_REQUEST_DELAY).await;
    graceful.shutdown().await;
    sweeper.abort();
}
