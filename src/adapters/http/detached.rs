//! Uploads on tasks of their own: what was sent whole is stored, though its client left right after.

use super::error::ApiError;
use axum::{
    Router,
    extract::Request,
    response::{IntoResponse, Response},
};
use futures::future::{BoxFuture, Either};
use hyper::{body::Incoming, service::Service};
use hyper_util::service::{TowerToHyperService, TowerToHyperServiceFuture};
use std::convert::Infallible;
use tokio_util::task::TaskTracker;

/// How the paths that finish runs end, on both listeners.
const FINISH: [&str; 2] = ["/finish", "/finish-multipart"];

/// A router whose uploads go on when their clients have left.
///
/// The server reads the next bytes of a small upload, sees that the client has left and drops the
/// request before it has polled it even once. So this is not a layer of the router, whose futures
/// do nothing until they are polled.
#[derive(Clone)]
pub struct Detached {
    router: TowerToHyperService<Router>,
    /// The tasks that the process waits for at its end.
    tasks: TaskTracker,
}

impl Detached {
    /// Runs the uploads to a router on these tasks.
    pub fn new(router: Router, tasks: TaskTracker) -> Self {
        let router = TowerToHyperService::new(router);
        Self { router, tasks }
    }
}

impl Service<Request<Incoming>> for Detached {
    type Response = Response;
    type Error = Infallible;
    type Future = Either<
        TowerToHyperServiceFuture<Router, Request<Incoming>>,
        BoxFuture<'static, Result<Response, Infallible>>,
    >;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let path = request.uri().path();
        let is_upload = FINISH.iter().any(|end| path.ends_with(end));
        let response = self.router.call(request);
        if !is_upload {
            return Either::Left(response);
        }
        let task = self.tasks.spawn(response);
        Either::Right(Box::pin(async move {
            task.await.unwrap_or_else(|error| {
                tracing::error!(error = &error as &dyn std::error::Error, "an upload failed");
                Ok(ApiError::defect().into_response())
            })
        }))
    }
}
