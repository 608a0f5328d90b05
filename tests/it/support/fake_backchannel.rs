//! A server that plays a worker or a Jenkins, as a test tells it to.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{Response, StatusCode, header},
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

#[derive(Clone)]
enum Part {
    Answer(u16, String),
    /// Never answers.
    Hang,
    /// A byte now and then.
    Drip,
    /// As a server that knows byte ranges.
    Ranges(String),
    /// As Jenkins shows the console of a job.
    Progressive(String),
}

#[derive(Default)]
struct Script {
    parts: HashMap<String, Part>,
    asked: HashMap<String, usize>,
}

pub struct FakeWorker {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    _server: AbortOnDropHandle<()>,
}

fn body(status: u16, text: impl Into<Body>) -> Response<Body> {
    let answer = Response::builder().status(StatusCode::from_u16(status).unwrap());
    let answer = if (300..400).contains(&status) {
        answer.header(header::LOCATION, "/elsewhere")
    } else {
        answer
    };
    answer.body(text.into()).unwrap()
}

fn drip() -> Body {
    Body::from_stream(stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        Some((Ok::<_, std::io::Error>(Bytes::from_static(b"r")), ()))
    }))
}

async fn perform(State(script): State<Arc<Mutex<Script>>>, request: Request) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let part = {
        let mut script = script.lock().unwrap();
        *script.asked.entry(path.clone()).or_default() += 1;
        script.parts.get(&path).cloned()
    };
    let number = |text: Option<&str>| {
        text.and_then(|text| text.parse::<usize>().ok())
            .unwrap_or(0)
    };
    match part {
        None => body(404, "no such thing"),
        Some(Part::Answer(status, text)) => body(status, text),
        Some(Part::Hang) => std::future::pending().await,
        Some(Part::Drip) => body(200, drip()),
        Some(Part::Ranges(text)) => {
            let range = request
                .headers()
                .get(header::RANGE)
                .and_then(|range| range.to_str().ok());
            match range.map(|range| {
                number(Some(
                    range.trim_start_matches("bytes=").trim_end_matches('-'),
                ))
            }) {
                None => body(200, text),
                Some(from) if from >= text.len() => body(416, ""),
                Some(from) => body(206, text[from..].to_owned()),
            }
        }
        Some(Part::Progressive(text)) => {
            let from = number(
                request
                    .uri()
                    .query()
                    .and_then(|query| query.strip_prefix("start=")),
            );
            let from = if from > text.len() { 0 } else { from };
            let mut answer = body(200, text[from..].to_owned());
            answer
                .headers_mut()
                .insert("x-text-size", text.len().into());
            answer
        }
    }
}

impl FakeWorker {
    pub async fn start() -> Self {
        let script = Arc::<Mutex<Script>>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new()
            .fallback(perform)
            .with_state(script.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            script,
            _server: AbortOnDropHandle::new(server),
        }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    fn play(&self, path: &str, part: Part) {
        self.script
            .lock()
            .unwrap()
            .parts
            .insert(path.to_owned(), part);
    }

    pub fn answer(&self, path: &str, status: u16, text: &str) {
        self.play(path, Part::Answer(status, text.to_owned()));
    }

    pub fn hang(&self, path: &str) {
        self.play(path, Part::Hang);
    }

    pub fn drip(&self, path: &str) {
        self.play(path, Part::Drip);
    }

    pub fn serve_ranges(&self, path: &str, text: &str) {
        self.play(path, Part::Ranges(text.to_owned()));
    }

    pub fn progressive(&self, path: &str, text: &str) {
        self.play(path, Part::Progressive(text.to_owned()));
    }

    pub fn asked(&self, path: &str) -> usize {
        self.script
            .lock()
            .unwrap()
            .asked
            .get(path)
            .copied()
            .unwrap_or(0)
    }
}
