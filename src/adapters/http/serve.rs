//! Connections. Thousands of workers may wait, so that a waiting connection must be small: HTTP/1
//! without the parts that other versions and upgrades would need, which are a third of its memory.

use axum::{Router, extract::ConnectInfo};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use std::{io, net::SocketAddr, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// The delay after a failure to accept connections, for want of file descriptors for example.
const RETRY_DELAY: Duration = Duration::from_millis(100);

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

async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
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

/// Serves until `end` is cancelled; then accepts no connection any more, and waits until every
/// request has its response.
pub async fn serve(listener: TcpListener, router: Router, end: CancellationToken) {
    let (connections, service) = (GracefulShutdown::new(), TowerToHyperService::new(router));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(None);
    loop {
        let (stream, peer) = tokio::select! {
            accepted = accept(&listener) => accepted,
            () = end.cancelled() => break,
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot disable the delay of a connection");
        }
        let service = service.clone();
        let with_peer = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            service.call(request)
        });
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), with_peer));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection failed");
            }
        });
    }
    drop(listener);
    // Shutting down closes connections that have sent nothing yet. To a client that has just
    // connected that is the same as being refused, and some throw a result away then.
    tokio::time::sleep(LAST_REQUEST_DELAY).await;
    connections.shutdown().await;
}
