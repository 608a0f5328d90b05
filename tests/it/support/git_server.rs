//! A forge: git repositories by HTTP in each way that servers have, and responses that are none.

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Response, StatusCode, Uri, header},
};
use futures::stream;
use std::{
    convert::Infallible,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{io::AsyncWriteExt, process::Command};
use tokio_util::task::AbortOnDropHandle;

/// A request that the forge has seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub authorization: Option<String>,
}

/// A server of the repositories in a folder. The first segment of a path says how it responds:
///
/// - `v2`, `v1`, `v0`: as git does, with that version of the protocol at most;
/// - `dumb`: with the files of the repository;
/// - `status-N`, `status-N-HEADER-VALUE`: with that status, and that header;
/// - `to-HOST:PORT`, `loop`: with a redirect there, or to itself;
/// - `moved`: with a redirect to `v2`;
/// - `private`: as `v2` to who logs in as u with the password p@ss, else with 401;
/// - `hang`, `drip`, `garbage`, `many`: never, a byte a second, with nonsense, with 500,000 refs.
pub struct GitServer {
    pub url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Forge {
    folder: Arc<PathBuf>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

fn response(status: u16, content_type: &str, body: impl Into<Body>) -> Response<Body> {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, content_type)
        .body(body.into())
        .unwrap()
}

fn redirect(to: &str) -> Response<Body> {
    Response::builder()
        .status(StatusCode::FOUND)
        .header(header::LOCATION, to)
        .body(Body::empty())
        .unwrap()
}

/// A refs advertisement of version 0 with 500,000 refs, in chunks.
fn many_refs() -> Response<Body> {
    let line = |text: String| format!("{:04x}{text}", text.len() + 4);
    let id = "1".repeat(40);
    let first = format!("{id} HEAD\0symref=HEAD:refs/heads/main agent=x\n");
    let head = format!(
        "{}0000{}",
        line("# service=git-upload-pack\n".into()),
        line(first)
    );
    let chunk = move |number: u32| {
        let refs = (0..1000).map(|i| format!("{id} refs/heads/b{:06}\n", number * 1000 + i));
        refs.map(line).collect::<String>()
    };
    let last = format!(
        "{}0000",
        line(format!("{} refs/heads/main\n", "2".repeat(40)))
    );
    let chunks = std::iter::once(head)
        .chain((0..500).map(chunk))
        .chain([last])
        .map(|chunk| Ok::<_, Infallible>(Bytes::from(chunk)));
    let body = Body::from_stream(stream::iter(chunks));
    response(200, "application/x-git-upload-pack-advertisement", body)
}

/// Runs `git http-backend` as web servers do.
async fn backend(
    folder: &Path,
    path: &str,
    version: &str,
    headers: &HeaderMap,
    request: (String, Option<String>, Bytes),
) -> Response<Body> {
    let (method, query, body) = request;
    let mut git = Command::new("git");
    git.arg("http-backend")
        .env("GIT_PROJECT_ROOT", folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", path)
        .env("REQUEST_METHOD", method)
        .env("QUERY_STRING", query.unwrap_or_default())
        .env("CONTENT_LENGTH", body.len().to_string())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if let Some(kind) = headers.get(header::CONTENT_TYPE) {
        git.env("CONTENT_TYPE", kind.to_str().unwrap());
    }
    let asked = headers
        .get("git-protocol")
        .map(|asked| asked.to_str().unwrap());
    if let (Some(_), "version=1" | "version=2") = (asked, version) {
        git.env("GIT_PROTOCOL", version);
    }
    let mut git = git.spawn().unwrap();
    git.stdin.take().unwrap().write_all(&body).await.unwrap();
    let output = git.wait_with_output().await.unwrap().stdout;
    let end = output
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    let mut response = Response::builder();
    for line in String::from_utf8_lossy(&output[..end]).lines() {
        let (name, value) = line.split_once(": ").unwrap();
        response = match name {
            "Status" => response.status(value[..3].parse::<u16>().unwrap()),
            name => response.header(name, value),
        };
    }
    response
        .body(Body::from(output[end + 4..].to_vec()))
        .unwrap()
}

async fn respond(State(forge): State<Forge>, request: Request) -> Response<Body> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let authorization = head.headers.get(header::AUTHORIZATION);
    forge.seen.lock().unwrap().push(Seen {
        method: head.method.to_string(),
        path: path.clone(),
        authorization: authorization.map(|value| value.to_str().unwrap().to_owned()),
    });
    let (mode, rest) = path[1..].split_once('/').unwrap_or((&path[1..], ""));
    let rest = format!("/{rest}");
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let parts = (
        head.method.to_string(),
        head.uri.query().map(str::to_owned),
        body,
    );
    let run =
        async |version: &str| backend(&forge.folder, &rest, version, &head.headers, parts).await;
    match mode {
        "v2" => run("version=2").await,
        "v1" => run("version=1").await,
        "v0" => run("version=0").await,
        "dumb" => match tokio::fs::read(forge.folder.join(&rest[1..])).await {
            Ok(content) => response(200, "text/plain", content),
            Err(_) => response(404, "text/plain", "no such file"),
        },
        "private" => match authorization {
            // u:p@ss
            Some(login) if login == "Basic dTpwQHNz" => run("version=2").await,
            _ => response(401, "text/plain", "log in"),
        },
        "moved" => redirect(&format!("/v2{rest}{}", query_of(&head.uri))),
        "page" => redirect("/login"),
        "login" => response(200, "text/html", "<html>Log in</html>"),
        "loop" => redirect(&format!("{path}{}", query_of(&head.uri))),
        "hang" => std::future::pending().await,
        "drip" => {
            let bytes = stream::unfold((), |()| async {
                tokio::time::sleep(Duration::from_millis(500)).await;
                Some((Ok::<_, Infallible>(Bytes::from_static(b"0")), ()))
            });
            let kind = "application/x-git-upload-pack-advertisement";
            response(200, kind, Body::from_stream(bytes))
        }
        "garbage" => response(
            200,
            "application/x-git-upload-pack-advertisement",
            "<html>zzzz</html>",
        ),
        "many" => many_refs(),
        mode => by_name(mode, &rest, &head.uri),
    }
}

fn query_of(uri: &Uri) -> String {
    uri.query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default()
}

/// A response that is named by a first segment such as `status-429-retry-after-30`.
fn by_name(mode: &str, rest: &str, uri: &Uri) -> Response<Body> {
    if let Some(place) = mode.strip_prefix("to-") {
        return redirect(&format!("http://{place}{rest}{}", query_of(uri)));
    }
    let Some(status) = mode.strip_prefix("status-") else {
        return response(404, "text/plain", "no such repository");
    };
    let (status, header) = status.split_once('-').unwrap_or((status, ""));
    let mut response = response(status.parse().unwrap(), "text/plain", "by name");
    if let Some((name, value)) = header.rsplit_once('-') {
        let name = header::HeaderName::from_bytes(name.as_bytes()).unwrap();
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

impl GitServer {
    /// Serves the repositories in a folder.
    pub async fn start(folder: &Path) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let forge = Forge {
            folder: Arc::new(folder.to_owned()),
            seen: seen.clone(),
        };
        let app = axum::Router::new().fallback(respond).with_state(forge);
        let serving = async move { axum::serve(listener, app).await.unwrap() };
        Self {
            url,
            seen,
            _serving: AbortOnDropHandle::new(tokio::spawn(serving)),
        }
    }

    /// The requests so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}
