//! The metrics and the tracing span of each request.

use super::AppState;
use axum::{
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::Response,
};
use std::{sync::Arc, time::Instant};
use tower_http::request_id::RequestId;
use tracing::Instrument;

/// The maximum size of an id of a request that is logged, in bytes.
const MAX_ID: usize = 200;
/// The length of a `traceparent`, by W3C's Trace Context.
const TRACE_PARENT: usize = 55;

/// Marks a response to a request that met a defect or a failing store, which is an exception in the
/// metrics of the Python runner.
#[derive(Debug, Clone, Copy)]
pub struct IsException;

fn route_name(route: Option<&MatchedPath>) -> &str {
    route.map_or("none", MatchedPath::as_str)
}

/// Counts each request and runs it in a span.
///
/// It is no `async fn`, because thousands of requests may wait: the future keeps what is needed
/// for that after the response, and not the whole request.
pub fn observe(
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
        .filter(|id| id.len() <= MAX_ID)
        .unwrap_or_default();
    let trace = request
        .headers()
        .get("traceparent")
        .and_then(|parent| parent.to_str().ok())
        .filter(|parent| parent.len() == TRACE_PARENT)
        .unwrap_or_default();
    let span = tracing::info_span!(
        "http.request.handle",
        http.method = %method,
        http.route = route_name(route.as_ref()),
        request.id = id,
        traceparent = trace
    );
    let response = next.run(request).instrument(span.clone());
    async move {
        let response = response.await;
        let status = response.status();
        app.metrics.answered(
            method.as_str(),
            route.as_ref().map(MatchedPath::as_str),
            status.as_u16(),
            response.extensions().get::<IsException>().is_some(),
            started.elapsed(),
        );
        let length = response
            .headers()
            .get(header::CONTENT_LENGTH)
            .and_then(|length| length.to_str().ok())
            .unwrap_or_default();
        let milliseconds = started.elapsed().as_millis();
        tracing::debug!(
            parent: &span,
            http.status = status.as_u16(),
            http.length = length,
            milliseconds,
            "responded"
        );
        response
    }
}
