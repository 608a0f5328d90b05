//! A bucket in this process that speaks enough of S3 and of GCS's JSON API, and behaves as badly as a test wants it to.

use bytes::Bytes;
use futures::stream;
use http_body_util::{BodyExt, StreamBody, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use janitor_runner::adapters::{
    gcs::{GcsBucket, GcsCredentials, GcsSettings},
    objects::Objects,
    s3::{S3Bucket, S3Credentials, S3Settings},
};
use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::TcpListener;

/// The name of the bucket.
pub const NAME: &str = "bucket";
/// How many bytes of a response are sent at a time.
const CHUNK_SIZE: usize = 64 << 10;

/// Which API a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    S3,
    Gcs,
}

/// What the bucket does with a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    Normal,
    /// Responds with this status, and does nothing.
    Status(u16),
    /// The same, and asks to wait so many seconds.
    RetryAfter(u16, u32),
    /// Closes the connection, and does nothing.
    CutBefore,
    /// Does what it was asked to, and closes the connection before or within the response.
    CutAfter,
    /// Reads and writes so many bytes in a second.
    Crawl(u64),
    /// Never reads or responds.
    Hang,
}

/// A request, as far as tests look at it.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: BTreeMap<String, String>,
}

type Decide = Box<dyn FnMut(&Asked) -> Mood + Send>;
type Body = BoxBody<Bytes, io::Error>;

struct Upload {
    key: String,
    parts: BTreeMap<u32, Vec<u8>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, Upload>,
    begun: usize,
    asked: Vec<Asked>,
    /// Objects may not be overwritten.
    no_overwrite: bool,
    /// The bucket may not be listed: absent objects are refused.
    no_list: bool,
}

pub struct FakeBucket {
    pub url: String,
    state: Arc<Mutex<State>>,
    decide: Arc<Mutex<Decide>>,
}

impl FakeBucket {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let decide: Arc<Mutex<Decide>> = Arc::new(Mutex::new(Box::new(|_| Mood::Normal)));
        let (of_server, moods) = (state.clone(), decide.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, decide) = (of_server.clone(), moods.clone());
                let service =
                    service_fn(move |request| respond(state.clone(), decide.clone(), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { url, state, decide }
    }

    /// Decides the mood of each request from now on.
    pub fn decide(&self, decide: impl FnMut(&Asked) -> Mood + Send + 'static) {
        *self.decide.lock().unwrap() = Box::new(decide);
    }

    pub fn always(&self, mood: Mood) {
        self.decide(move |_| mood);
    }

    /// Is in these moods, one for each request, and normal afterwards.
    pub fn then(&self, moods: Vec<Mood>) {
        let mut moods = moods.into_iter();
        self.decide(move |_| moods.next().unwrap_or(Mood::Normal));
    }

    pub fn forbid_overwriting(&self) {
        self.state.lock().unwrap().no_overwrite = true;
    }

    pub fn forbid_listing(&self) {
        self.state.lock().unwrap().no_list = true;
    }

    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        self.state.lock().unwrap().objects.clone()
    }

    /// The number of uploads that are neither completed nor aborted.
    pub fn open_uploads(&self) -> usize {
        self.state.lock().unwrap().uploads.len()
    }

    /// The number of uploads in parts that were begun.
    pub fn begun_uploads(&self) -> usize {
        self.state.lock().unwrap().begun
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    pub async fn objects_of(&self, kind: Kind) -> Arc<dyn Objects> {
        match kind {
            Kind::S3 => Arc::new(S3Bucket::open(&self.s3_settings()).unwrap()),
            Kind::Gcs => {
                janitor_runner::tls::install();
                let settings = GcsSettings {
                    bucket: NAME.into(),
                    endpoint: Some(self.url.clone()),
                    credentials: GcsCredentials::Anonymous,
                };
                Arc::new(GcsBucket::open(&settings).await.unwrap())
            }
        }
    }

    pub fn s3_settings(&self) -> S3Settings {
        janitor_runner::tls::install();
        S3Settings {
            bucket: NAME.into(),
            endpoint: Some(self.url.clone()),
            region: "us-east-1".into(),
            credentials: S3Credentials::Key {
                id: "key".into(),
                secret: "secret".into(),
            },
            acl: None,
        }
    }
}

fn decoded(text: &str) -> String {
    let text = text.replace('+', "%2B");
    url::form_urlencoded::parse(format!("x={}", text.replace('&', "%26")).as_bytes())
        .next()
        .map(|(_, value)| value.into_owned())
        .unwrap_or_default()
}

fn asked(request: &Request<Incoming>) -> Asked {
    let query = request.uri().query().unwrap_or_default().as_bytes();
    Asked {
        method: request.method().to_string(),
        path: decoded(request.uri().path()),
        query: url::form_urlencoded::parse(query).into_owned().collect(),
        headers: request
            .headers()
            .iter()
            .map(|(name, value)| {
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                (name.to_string(), value)
            })
            .collect(),
    }
}

fn cut() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

/// How long so many bytes take.
fn time_of(bytes: usize, mood: Mood) -> Duration {
    match mood {
        Mood::Crawl(rate) => Duration::from_millis(bytes as u64 * 1000 / rate),
        _ => Duration::ZERO,
    }
}

/// A body that is sent at the pace of the mood, and breaks off half-way if it is to be cut.
fn body(bytes: Vec<u8>, mood: Mood) -> Body {
    let half = bytes.len() / 2;
    let mut chunks: Vec<io::Result<Bytes>> = vec![];
    let whole = Bytes::from(bytes);
    let sent = if mood == Mood::CutAfter {
        whole.slice(..half)
    } else {
        whole
    };
    chunks.extend(
        sent.chunks(CHUNK_SIZE)
            .map(|chunk| Ok(Bytes::copy_from_slice(chunk))),
    );
    if mood == Mood::CutAfter {
        chunks.push(Err(cut()));
    }
    let frames = stream::unfold(chunks.into_iter(), move |mut chunks| async move {
        let chunk = chunks.next()?;
        tokio::time::sleep(time_of(chunk.as_ref().map_or(0, Bytes::len), mood)).await;
        Some((chunk.map(Frame::data), chunks))
    });
    BoxBody::new(StreamBody::new(Box::pin(SyncStream(Mutex::new(Box::pin(
        frames,
    ))))))
}

/// Makes a stream that `BoxBody` accepts.
struct SyncStream<S>(Mutex<S>);

impl<S: futures::Stream + Unpin> futures::Stream for SyncStream<S> {
    type Item = S::Item;

    fn poll_next(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<S::Item>> {
        std::pin::Pin::new(&mut *self.0.lock().unwrap()).poll_next(context)
    }
}

async fn respond(
    state: Arc<Mutex<State>>,
    decide: Arc<Mutex<Decide>>,
    request: Request<Incoming>,
) -> io::Result<Response<Body>> {
    let asked = asked(&request);
    let mood = (decide.lock().unwrap())(&asked);
    state.lock().unwrap().asked.push(asked.clone());
    match mood {
        Mood::CutBefore => return Err(cut()),
        Mood::Hang => std::future::pending().await,
        _ => {}
    }
    let (mut content, mut incoming) = (vec![], request.into_body());
    while let Some(frame) = incoming.frame().await {
        if let Ok(data) = frame.map_err(io::Error::other)?.into_data() {
            tokio::time::sleep(time_of(data.len(), mood)).await;
            content.extend_from_slice(&data);
        }
    }
    let is_gcs = asked.path.starts_with("/storage/") || asked.path.starts_with("/upload/");
    let (status, headers, bytes) = match mood {
        Mood::Status(status) | Mood::RetryAfter(status, _) => (status, vec![], vec![]),
        _ if is_gcs => gcs(&mut state.lock().unwrap(), &asked, content),
        _ => s3(&mut state.lock().unwrap(), &asked, content),
    };
    if mood == Mood::CutAfter && bytes.is_empty() {
        return Err(cut());
    }
    let bytes = match (status, is_gcs) {
        (200..400, _) => bytes,
        (_, true) => {
            format!(r#"{{"error":{{"code":{status},"message":"no","errors":[]}}}}"#).into()
        }
        (_, false) => format!("<Error><Code>Code{status}</Code></Error>").into(),
    };
    let mut response = Response::builder()
        .status(StatusCode::from_u16(status).unwrap())
        .header("content-length", bytes.len());
    if let Mood::RetryAfter(_, seconds) = mood {
        response = response.header("retry-after", seconds);
    }
    for (name, value) in headers {
        response = response.header(name, value);
    }
    let bytes = if asked.method == "HEAD" {
        vec![]
    } else {
        bytes
    };
    Ok(response.body(body(bytes, mood)).unwrap())
}

/// Status, headers and body of a response.
type Plain = (u16, Vec<(&'static str, String)>, Vec<u8>);

fn status(status: u16) -> Plain {
    (status, vec![], vec![])
}

fn put(state: &mut State, key: &str, content: Vec<u8>) -> u16 {
    if state.no_overwrite && state.objects.contains_key(key) {
        return 403;
    }
    state.objects.insert(key.to_owned(), content);
    200
}

fn get(state: &State, key: &str) -> Plain {
    match state.objects.get(key) {
        Some(content) => (200, vec![("etag", "\"1\"".into())], content.clone()),
        None if state.no_list => status(403),
        None => status(404),
    }
}

fn gcs(state: &mut State, asked: &Asked, content: Vec<u8>) -> Plain {
    let objects = format!("/storage/v1/b/{NAME}/o");
    if asked.path == format!("/upload{objects}") {
        let (name, size) = (asked.query["name"].clone(), content.len());
        let object = serde_json::json!({
            "selfLink": "", "mediaLink": "", "metageneration": "1", "generation": "1",
            "size": size.to_string(), "name": name, "id": name, "bucket": NAME,
        });
        return match put(state, &name, content) {
            200 => (200, vec![], object.to_string().into()),
            refused => status(refused),
        };
    }
    match asked.path.strip_prefix(&objects) {
        Some("") if state.no_list => status(403),
        Some("") => (200, vec![], b"{}".to_vec()),
        Some(name) => get(state, name.trim_start_matches('/')),
        None => status(404),
    }
}

fn open_uploads(state: &State, asked: &Asked) -> String {
    let prefix = asked.query.get("prefix").cloned().unwrap_or_default();
    let open: Vec<String> = state
        .uploads
        .iter()
        .filter(|(_, upload)| upload.key.starts_with(&prefix))
        .map(|(id, upload)| {
            let key = &upload.key;
            format!("<Upload><Key>{key}</Key><UploadId>{id}</UploadId></Upload>")
        })
        .collect();
    let open = open.concat();
    format!("<ListMultipartUploadsResult>{open}</ListMultipartUploadsResult>")
}

fn s3(state: &mut State, asked: &Asked, content: Vec<u8>) -> Plain {
    let key = asked.path.strip_prefix(&format!("/{NAME}")).unwrap_or("");
    let key = key.trim_start_matches('/');
    let xml = |text: String| (200, vec![], text.into_bytes());
    let etag = vec![("etag", "\"1\"".to_owned())];
    let upload = asked.query.get("uploadId");
    match (asked.method.as_str(), upload) {
        ("GET", _) if key.is_empty() && asked.query.contains_key("uploads") => {
            xml(open_uploads(state, asked))
        }
        ("GET", _) if key.is_empty() && state.no_list => status(403),
        ("GET", _) if key.is_empty() => xml("<ListBucketResult></ListBucketResult>".into()),
        ("GET" | "HEAD", _) => get(state, key),
        ("POST", None) => {
            state.begun += 1;
            let id = format!("upload{}", state.begun);
            let upload = Upload {
                key: key.to_owned(),
                parts: BTreeMap::new(),
            };
            state.uploads.insert(id.clone(), upload);
            xml(format!(
                "<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"
            ))
        }
        ("PUT", None) => (put(state, key, content), etag, vec![]),
        ("PUT", Some(id)) => match state.uploads.get_mut(id) {
            Some(upload) => {
                let number = asked.query["partNumber"].parse().unwrap();
                upload.parts.insert(number, content);
                (200, etag, vec![])
            }
            None => status(404),
        },
        ("POST", Some(id)) => match state.uploads.remove(id) {
            Some(upload) => {
                let whole = upload.parts.into_values().flatten().collect();
                match put(state, key, whole) {
                    200 => xml("<CompleteMultipartUploadResult><ETag>1</ETag></CompleteMultipartUploadResult>".into()),
                    refused => status(refused),
                }
            }
            None => status(404),
        },
        ("DELETE", Some(id)) => match state.uploads.remove(id) {
            Some(_) => status(204),
            None => status(404),
        },
        _ => status(405),
    }
}
