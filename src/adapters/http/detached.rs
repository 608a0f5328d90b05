//! Uploads on tasks of their own: what was sent whole is stored, though its client left right
//! after.

use super::{
    RequestLimits,
    connections::{Connection, OfRequest},
    error::ApiError,
    unread::watch,
};
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request},
    response::{IntoResponse, Response},
};
use futures::future::BoxFuture;
use hyper::{body::Incoming, service::Service};
use hyper_util::service::TowerToHyperService;
use std::{convert::Infallible, net::SocketAddr, sync::Arc};
use tokio_util::task::TaskTracker;

/// Returns whether a request to that path uploads a result.
pub(super) fn is_upload(path: &str) -> bool {
    FINISH.iter().any(|end| path.ends_with(end))
}

/// How the paths that finish runs end, on both listeners.
const FINISH: [&str; 2] = ["/finish", "/finish-multipart"];

/// A router whose uploads go on when their clients have left.
#[derive(Clone)]
pub(super) struct Detached {
    router: TowerToHyperService<Router>,
    /// The tasks that the process waits for at its end.
    tasks: TaskTracker,
    /// The limits of bodies that are not read.
    limits: RequestLimits,
}

impl Detached {
    /// Runs the uploads to a router on these tasks.
    pub(super) fn new(router: Router, tasks: TaskTracker, limits: RequestLimits) -> Self {
        Self {
            router: TowerToHyperService::new(router),
            tasks,
            limits,
        }
    }

    /// Returns the service of one connection, which comes from `peer`, unless from a Unix socket.
    pub(super) fn of(&self, connection: Arc<Connection>, peer: Option<SocketAddr>) -> OfConnection {
        OfConnection {
            service: self.clone(),
            connection,
            peer,
        }
    }
}

/// The service of one connection, to which its requests belong.
///
/// The server reads the next bytes of a small upload, sees that the client has left and drops the
/// request before it has polled it even once. So this is not a layer of the router, whose futures
/// do nothing until they are polled.
pub(super) struct OfConnection {
    service: Detached,
    connection: Arc<Connection>,
    peer: Option<SocketAddr>,
}

impl Service<Request<Incoming>> for OfConnection {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let busy = self.connection.begin();
        request.extensions_mut().insert(self.connection.clone());
        if let Some(peer) = self.peer {
            request.extensions_mut().insert(ConnectInfo(peer));
        }
        let is_upload = is_upload(request.uri().path());
        let (request, unread) = watch(request);
        let response = self.service.router.call(request);
        let limits = self.service.limits;
        let responded = async move |response: Response| {
            if let Some(unread) = unread {
                unread.drain(&limits, is_upload, response.status()).await;
            }
            response.map(|body| Body::new(OfRequest::new(body, busy)))
        };
        if !is_upload {
            return Box::pin(async move { Ok(responded(response.await?).await) });
        }
        let task = self.service.tasks.spawn(response);
        Box::pin(async move {
            let response = task.await.unwrap_or_else(|error| {
                tracing::error!(error = &error as &dyn std::error::Error, "an upload failed");
                Ok(ApiError::defect().into_response())
            });
            Ok(responded(response?).await)
        })
    }
}
