//! A fake worker or Jenkins: a server whose responses a test sets, path by path.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, Response, StatusCode, header},
};
use bytes::Bytes;
use futures::stream;
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio_util::task::AbortOnDropHandle;

/// How a path responds.
#[derive(Clone)]
enum ResponseTemplate {
    /// With a status and a body.
    Fixed(u16, String),
    /// Never.
    Hang,
    /// With a body of a byte every 100 ms, without end.
    Trickle,
    /// As a server that supports byte ranges.
    Ranges(String),
    /// As the progressive console log of a Jenkins job.
    Progressive(String),
}

#[derive(Default)]
struct Mocks {
    templates: HashMap<String, ResponseTemplate>,
    received: HashMap<String, usize>,
    /// The query of the last request, by path.
    queries: HashMap<String, String>,
}

/// The server; it stops when this is dropped. Paths without a mock respond with 404.
pub struct FakeWorker {
    address: SocketAddr,
    mocks: Arc<Mutex<Mocks>>,
    _server: AbortOnDropHandle<()>,
}

fn response(status: u16, body: impl Into<Body>) -> Response<Body> {
    let response = Response::builder().status(StatusCode::from_u16(status).unwrap());
    let response = if (300..400).contains(&status) {
        response.header(header::LOCATION, "/elsewhere")
    } else {
        response
    };
    response.body(body.into()).unwrap()
}

fn trickling_body() -> Body {
    Body::from_stream(stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b"r")), ()))
    }))
}

/// The part of a text from the start of the range that is asked for.
fn range_of(text: &str, headers: &HeaderMap) -> Response<Body> {
    let Some(range) = headers
        .get(header::RANGE)
        .and_then(|range| range.to_str().ok())
    else {
        return response(200, text.to_owned());
    };
    let start = range.trim_start_matches("bytes=").trim_end_matches('-');
    match start.parse::<usize>().unwrap_or(0) {
        start if start >= text.len() => response(416, ""),
        start => response(206, text[start..].to_owned()),
    }
}

/// The part of a text from the offset in the query, as Jenkins sends it. An offset past the end starts over.
fn progressive_text(text: &str, query: Option<&str>) -> Response<Body> {
    let start = query
        .and_then(|query| query.strip_prefix("start="))
        .and_then(|start| start.parse::<usize>().ok())
        .filter(|start| *start <= text.len())
        .unwrap_or(0);
    let mut response = response(200, text[start..].to_owned());
    let size = text.len().into();
    response.headers_mut().insert("x-text-size", size);
    response
}

async fn respond(State(mocks): State<Arc<Mutex<Mocks>>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let template = {
        let mut mocks = mocks.lock().unwrap();
        *mocks.received.entry(path.clone()).or_default() += 1;
        let query = request.uri().query().unwrap_or_default().to_owned();
        mocks.queries.insert(path.clone(), query);
        mocks.templates.get(&path).cloned()
    };
    match template {
        None => response(404, "no such thing"),
        Some(ResponseTemplate::Fixed(status, body)) => response(status, body),
        Some(ResponseTemplate::Hang) => std::future::pending().await,
        Some(ResponseTemplate::Trickle) => response(200, trickling_body()),
        Some(ResponseTemplate::Ranges(text)) => range_of(&text, request.headers()),
        Some(ResponseTemplate::Progressive(text)) => progressive_text(&text, request.uri().query()),
    }
}

impl FakeWorker {
    pub async fn start() -> Self {
        let mocks = Arc::<Mutex<Mocks>>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new()
            .fallback(respond)
            .with_state(mocks.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            mocks,
            _server: AbortOnDropHandle::new(server),
        }
    }

    /// Returns the query of the last request to a path.
    pub fn last_query(&self, path: &str) -> Option<String> {
        self.mocks.lock().unwrap().queries.get(path).cloned()
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Sets how a path responds from now on.
    fn mount(&self, path: &str, template: ResponseTemplate) {
        let mut mocks = self.mocks.lock().unwrap();
        mocks.templates.insert(path.to_owned(), template);
    }

    pub fn respond_with(&self, path: &str, status: u16, body: &str) {
        self.mount(path, ResponseTemplate::Fixed(status, body.to_owned()));
    }

    pub fn never_respond(&self, path: &str) {
        self.mount(path, ResponseTemplate::Hang);
    }

    pub fn trickle(&self, path: &str) {
        self.mount(path, ResponseTemplate::Trickle);
    }

    pub fn serve_ranges(&self, path: &str, text: &str) {
        self.mount(path, ResponseTemplate::Ranges(text.to_owned()));
    }

    pub fn serve_progressive(&self, path: &str, text: &str) {
        self.mount(path, ResponseTemplate::Progressive(text.to_owned()));
    }

    /// How many requests came to a path.
    pub fn received_requests(&self, path: &str) -> usize {
        let mocks = self.mocks.lock().unwrap();
        mocks.received.get(path).copied().unwrap_or(0)
    }
}
