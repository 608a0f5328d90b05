//! What a request still has of its body when its response is known.
//!
//! A client that sends all before it reads sees a closed connection, and not the response, if the
//! server closes while it sends. So the rest is read and dropped first, within limits.

use super::RequestLimits;
use axum::{extract::Request, http::StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    header,
};
use std::{
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::timeout;

/// How long a client may send nothing of it.
const MAX_IDLE: Duration = Duration::from_secs(10);

/// How much of it is read in all, and for how long.
const MAX_SIZE: u64 = 16 << 20;
const MAX_TIME: Duration = Duration::from_secs(30);
/// The time for an upload, which is large, and whose worker repeats all of it without a response.
const MAX_UPLOAD_TIME: Duration = Duration::from_mins(5);

#[derive(Debug)]
struct State {
    body: Incoming,
    /// Whether a handler has begun to read it.
    is_begun: bool,
}

/// The body of a request, which can be read on when its handler has dropped it.
#[derive(Debug, Clone)]
struct Shared(Arc<Mutex<State>>);

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Body for Shared {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let mut state = self.state();
        state.is_begun = true;
        Pin::new(&mut state.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.state().body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.state().body.size_hint()
    }
}

/// What the handler of a request may leave unread.
#[derive(Debug)]
pub(super) struct Unread {
    body: Shared,
    /// Whether the client sends nothing before it is asked to.
    waits: bool,
}

/// Takes the body of a request apart from it; returns `None` for a request without one.
pub(super) fn watch(request: Request<Incoming>) -> (Request, Option<Unread>) {
    let (head, body) = request.into_parts();
    if body.is_end_stream() {
        let body = axum::body::Body::new(body);
        return (Request::from_parts(head, body), None);
    }
    let waits = head.headers.contains_key(header::EXPECT);
    let state = State {
        body,
        is_begun: false,
    };
    let body = Shared(Arc::new(Mutex::new(state)));
    let unread = Unread {
        body: body.clone(),
        waits,
    };
    let body = axum::body::Body::new(body);
    (Request::from_parts(head, body), Some(unread))
}

impl Unread {
    /// Reads and drops the rest; that of an upload up to its maximum size. Strangers send none, and
    /// there is nothing more of a body that has stalled.
    pub(super) async fn drain(
        mut self,
        limits: &RequestLimits,
        is_upload: bool,
        status: StatusCode,
    ) {
        let is_waited_for = self.waits && !self.body.state().is_begun;
        if is_waited_for || status == StatusCode::REQUEST_TIMEOUT {
            return;
        }
        let (mut left, time) = match is_upload && status != StatusCode::UNAUTHORIZED {
            true => (limits.upload, MAX_UPLOAD_TIME),
            false => (MAX_SIZE, MAX_TIME),
        };
        let idle = limits.idle().min(MAX_IDLE);
        let rest = async {
            while let Ok(Some(Ok(frame))) = timeout(idle, self.body.frame()).await {
                let size = frame.data_ref().map_or(0, Bytes::len);
                left = left.saturating_sub(size as u64);
                if left == 0 {
                    return;
                }
            }
        };
        // Whoever still sends after that learns nothing.
        drop(timeout(time, rest).await);
    }
}
