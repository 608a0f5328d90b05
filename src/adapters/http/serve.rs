//! Connections. Workers may wait by the thousand, so a connection that waits must be small: HTTP/1 without the machinery that
//! other versions and upgrades would need, which is a third of its memory.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use std::{io, time::Duration};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// When no connection can be taken in, for want of files, say, it is tried again after this.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Whether only that one connection failed.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be taken in");
                tokio::time::sleep(TRY_AGAIN_AFTER).await;
            }
        }
    }
}

/// Serves until the end has come; then takes no connection in any more, and waits until all requests are answered.
pub async fn serve(listener: TcpListener, router: Router, end: CancellationToken) {
    let (connections, service) = (GracefulShutdown::new(), TowerToHyperService::new(router));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(None);
    loop {
        let stream = tokio::select! {
            stream = accept(&listener) => stream,
            () = end.cancelled() => break,
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection keeps its delay");
        }
        let connection =
            connections.watch(http.serve_connection(TokioIo::new(stream), service.clone()));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
    drop(listener);
    connections.shutdown().await;
}
