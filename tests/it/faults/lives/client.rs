//! Workers of both older generations, as far as the runner sees them: what they send, byte by byte.

use crate::support::random::Random;
use base64::Engine;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// How long the runner may take to respond.
const TIMEOUT: Duration = Duration::from_secs(30);
const BOUNDARY: &str = "d7f1c0de4a5b4f6e";
/// The largest part of an upload that is sent at once.
const CHUNK: usize = 16 << 10;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// In Python: parts by file name, `code` always, times without zone.
    Older,
    /// In Rust: `node` and `archs`, no code on success, times with zone, parts called `file`.
    Newer,
}

/// A file of an upload.
#[derive(Debug, Clone)]
pub struct File {
    pub name: Vec<u8>,
    pub content: Vec<u8>,
}

/// A response: its status and its body.
pub type Response = (u16, Value);

/// What an upload meets on its way.
#[derive(Debug, Clone, Copy)]
pub enum Way {
    Whole,
    /// The connection is cut after so many bytes of the body.
    CutAfter(usize),
    /// Each chunk waits a little, so that there is time for something to happen.
    Slowly,
    /// All is sent, and the response is not waited for.
    Unread,
}

pub struct Client {
    pub generation: Generation,
    address: String,
    name: &'static str,
    password: &'static str,
}

fn json_of(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned()))
}

fn parsed(response: &[u8]) -> Option<Response> {
    let end = response.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&response[..end]).unwrap();
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    });
    let body = &response[end + 4..];
    // A response that was cut off is none.
    (length.is_none_or(|length| body.len() == length)).then(|| (status, json_of(body)))
}

impl Client {
    pub fn new(
        generation: Generation,
        public: &str,
        (name, password): (&'static str, &'static str),
    ) -> Self {
        let address = public.strip_prefix("http://").unwrap().to_owned();
        Self {
            generation,
            address,
            name,
            password,
        }
    }

    fn head(&self, method: &str, path: &str, content_type: &str, length: usize) -> String {
        let login = format!("{}:{}", self.name, self.password);
        let login = base64::engine::general_purpose::STANDARD.encode(login);
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {login}\r\n\
             Content-Type: {content_type}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n",
            self.address
        )
    }

    /// Sends a request; none when the connection was lost before the response was complete.
    async fn send(&self, head: String, body: &[u8], way: Way) -> Option<Response> {
        let mut stream = TcpStream::connect(&self.address).await.ok()?;
        stream.write_all(head.as_bytes()).await.ok()?;
        let end = match way {
            Way::CutAfter(bytes) => bytes.min(body.len()),
            _ => body.len(),
        };
        for chunk in body[..end].chunks(CHUNK) {
            if matches!(way, Way::Slowly) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            stream.write_all(chunk).await.ok()?;
        }
        if matches!(way, Way::CutAfter(_) | Way::Unread) {
            let _ = stream.shutdown().await;
            return None;
        }
        let mut response = vec![];
        let read = stream.read_to_end(&mut response);
        tokio::time::timeout(TIMEOUT, read)
            .await
            .expect("a response in time")
            .ok()?;
        parsed(&response)
    }

    /// Asks for the item of a codebase.
    pub async fn claim(&self, codebase: &str) -> Response {
        let body = match self.generation {
            Generation::Older => json!({
                "worker": self.name, "worker_link": null, "backchannel": null,
                "codebase": codebase, "campaign": null,
            }),
            Generation::Newer => json!({
                "node": "host.example", "archs": ["amd64"], "worker_link": null,
                "backchannel": { "kind": "http", "url": "http://127.0.0.1:9/" },
                "codebase": codebase, "campaign": null,
            }),
        };
        let body = body.to_string();
        let head = self.head(
            "POST",
            "/runner/active-runs",
            "application/json",
            body.len(),
        );
        self.send(head, body.as_bytes(), Way::Whole)
            .await
            .expect("a response to a claim")
    }

    /// Uploads a result.
    pub async fn finish(
        &self,
        id: &str,
        report: &Value,
        files: &[File],
        way: Way,
    ) -> Option<Response> {
        let body = self.body(report, files);
        let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
        let path = format!("/runner/active-runs/{id}/finish");
        let head = self.head("POST", &path, &content_type, body.len());
        self.send(head, &body, way).await
    }

    /// The size of the body of an upload.
    pub fn size(&self, report: &Value, files: &[File]) -> usize {
        self.body(report, files).len()
    }

    fn body(&self, report: &Value, files: &[File]) -> Vec<u8> {
        let report = report.to_string().into_bytes();
        let mut body = self.part(b"result.json", &report, "metadata");
        for file in files {
            body.extend(self.part(&file.name, &file.content, "file"));
        }
        body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
        body
    }

    fn part(&self, name: &[u8], content: &[u8], field: &str) -> Vec<u8> {
        let disposition = match self.generation {
            // As aiohttp writes it: each byte that is no letter or digit is escaped.
            Generation::Older => [
                b"attachment; filename=\"".as_slice(),
                &escaped(name, |byte| {
                    byte.is_ascii_alphanumeric() || b"_.-~".contains(&byte)
                }),
                b"\"",
            ]
            .concat(),
            // As reqwest and browsers write it: only what would end the text or the line.
            Generation::Newer => [
                format!("form-data; name=\"{field}\"; filename=\"").as_bytes(),
                &escaped(name, |byte| !b"\"\r\n".contains(&byte)),
                b"\"",
            ]
            .concat(),
        };
        let mut part = format!("--{BOUNDARY}\r\nContent-Disposition: ").into_bytes();
        part.extend(disposition);
        part.extend(b"\r\nContent-Type: application/octet-stream\r\n\r\n");
        part.extend(content);
        part.extend(b"\r\n");
        part
    }
}

fn escaped(name: &[u8], is_plain: impl Fn(u8) -> bool) -> Vec<u8> {
    name.iter()
        .flat_map(|byte| match is_plain(*byte) {
            true => vec![*byte],
            false => format!("%{byte:02X}").into_bytes(),
        })
        .collect()
}

/// Names of files as codemods and builds leave them.
pub const NAMES: [&[u8]; 20] = [
    b"worker.log",
    b"codemod.log",
    b"build.log.1",
    b"hello_1.0_amd64.deb",
    b"plain.txt",
    b"with space.txt",
    b"quote\".txt",
    b"back\\slash",
    b"line\nbreak",
    b"a/b/c.txt",
    b"..",
    b".hidden",
    b"semi;colon=x",
    b"%41percent",
    "名前.txt".as_bytes(),
    b"latin\xe9.txt",
    b"nul\0byte",
    b"",
    b"result.json",
    b"x.log.gz",
];

/// Files with names and contents of all kinds. No two have the same content.
pub fn files(random: &mut Random, life: usize) -> Vec<File> {
    let count = random.below(6);
    (0..count)
        .map(|index| {
            let name = match random.below(12) {
                0 => b"n".repeat(253),
                _ => random.pick(&NAMES).to_vec(),
            };
            let size = [0, 1, 100, 4_000, 66_000, 200_000][random.below(6)];
            let mut content = format!("{life}/{index}\r\n--{}\r\n", &BOUNDARY[1..]).into_bytes();
            content.extend((0..size).map(|_| u8::try_from(random.below(256)).unwrap()));
            File { name, content }
        })
        .collect()
}
