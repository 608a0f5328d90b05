//! The runner's HTTP API, as a worker sees it.

use super::{WorkerConfig, WorkerError};
use crate::{
    adapters::clock::SystemClock,
    domain::time::{self, Time},
    http_client::http_client,
    ports::Clock,
};
use chrono::{DateTime, Utc};
use reqwest::{
    Body, Client, Method, RequestBuilder, Response, StatusCode,
    header::{CONTENT_RANGE, CONTENT_TYPE, DATE},
    multipart::{Form, Part},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, path::PathBuf, time::Duration};
use tokio_util::io::ReaderStream;

/// A sign of life that takes longer is tried again.
const SIGN_PATIENCE: Duration = Duration::from_secs(10);
/// How long an upload is tried again.
const UPLOAD_TRIES: [u64; 12] = [0, 1, 2, 4, 8, 15, 30, 60, 120, 180, 240, 240];

/// What to do.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Assignment {
    pub(super) id: String,
    pub(super) codebase: String,
    pub(super) campaign: String,
    pub(super) command: String,
    pub(super) branch: Branch,
    pub(super) resume: Option<Resume>,
    pub(super) build: Build,
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    pub(super) target_repository: TargetRepository,
    #[serde(default, rename = "force-build")]
    pub(super) force_build: bool,
    /// Whether the runner knows leases.
    lease_until: Option<String>,
    /// How long the lease lasts from one sign of life.
    #[serde(skip)]
    pub(super) lease: Option<Duration>,
}

/// The branch to change.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Branch {
    pub(super) url: Option<String>,
    pub(super) subpath: Option<String>,
    pub(super) vcs_type: Option<String>,
    #[serde(default, rename = "default-empty")]
    pub(super) default_empty: bool,
}

/// What to continue from.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Resume {
    pub(super) result: Option<Value>,
    pub(super) branch_url: String,
}

/// What to build.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Build {
    pub(super) target: String,
    #[serde(default)]
    pub(super) config: Map<String, Value>,
}

/// Where the result goes.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TargetRepository {
    pub(super) url: Option<String>,
}

/// What the runner says to a sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// Go on. A log has so many bytes there, if it was about one.
    GoOn(Option<u64>),
    /// Stop; why.
    Cancel(String),
    /// The run has ended there; whether its result is of no use.
    Ended { stop: bool },
    /// No more of this log is taken.
    Enough,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Said {
    cancel: Option<String>,
    size: Option<u64>,
    stop: bool,
}

/// A client of one runner.
#[derive(Debug, Clone)]
pub(super) struct Api {
    http: Client,
    url: String,
    name: String,
    password: Option<String>,
    wish: Value,
}

/// The runner's own time; ours may differ.
fn date_of(response: &Response) -> Time {
    let date = response
        .headers()
        .get(DATE)
        .and_then(|date| date.to_str().ok());
    date.and_then(|date| DateTime::parse_from_rfc2822(date).ok())
        .map_or_else(|| SystemClock.now(), |date| date.with_timezone(&Utc))
}

fn lasts(until: &str, now: Time) -> Option<Duration> {
    (time::parse("lease_until", until).ok()? - now)
        .to_std()
        .ok()
}

async fn refused(response: Response) -> WorkerError {
    let (url, status) = (response.url().to_string(), response.status().as_u16());
    let detail = response.text().await.unwrap_or_default();
    WorkerError::Refused {
        url,
        status,
        detail: detail.chars().take(500).collect(),
    }
}

impl Api {
    pub(super) fn new(config: &WorkerConfig, backchannel_url: String) -> Result<Self, WorkerError> {
        let wish = json!({
            "worker": config.name,
            "codebase": config.codebase,
            "campaign": config.campaign,
            "backchannel": { "kind": "http", "url": backchannel_url },
            "lease": true,
        });
        Ok(Self {
            http: http_client().map_err(WorkerError::Unreachable)?,
            url: config.url.trim_end_matches('/').to_owned(),
            name: config.name.clone(),
            password: config.password.clone(),
            wish,
        })
    }

    fn post(&self, path: &str) -> RequestBuilder {
        self.request(Method::POST, path)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.password {
            Some(password) => request.basic_auth(&self.name, Some(password)),
            None => request,
        }
    }

    /// Takes the next run, waiting for one up to so long; none when there is nothing to do.
    pub(super) async fn take(&self, wait: Duration) -> Result<Option<Assignment>, WorkerError> {
        let request = self
            .post("/active-runs")
            .query(&[("wait", wait.as_secs())])
            .json(&self.wish);
        let response = request.send().await.map_err(WorkerError::Unreachable)?;
        match response.status() {
            StatusCode::CREATED => {
                let now = date_of(&response);
                let mut assignment: Assignment =
                    response.json().await.map_err(WorkerError::Unreachable)?;
                assignment.lease = assignment
                    .lease_until
                    .as_deref()
                    .and_then(|until| lasts(until, now));
                Ok(Some(assignment))
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                let reason: Value = response.json().await.unwrap_or_default();
                let empty = reason.get("reason").and_then(Value::as_str) == Some("queue empty");
                let detail = reason.to_string();
                if empty {
                    Ok(None)
                } else {
                    Err(WorkerError::Refused {
                        url: self.url.clone(),
                        status: 503,
                        detail,
                    })
                }
            }
            _ => Err(refused(response).await),
        }
    }

    async fn tell(&self, request: RequestBuilder) -> Result<Told, WorkerError> {
        let response = request
            .timeout(SIGN_PATIENCE)
            .send()
            .await
            .map_err(WorkerError::Unreachable)?;
        let status = response.status();
        match status {
            StatusCode::GONE | StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => {
                let said: Said = response.json().await.unwrap_or_default();
                Ok(Told::Ended {
                    stop: said.stop || status != StatusCode::GONE,
                })
            }
            StatusCode::PAYLOAD_TOO_LARGE => Ok(Told::Enough),
            status if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE => {
                let said: Said = response.json().await.map_err(WorkerError::Unreachable)?;
                Ok(said.cancel.map_or(Told::GoOn(said.size), Told::Cancel))
            }
            _ => Err(refused(response).await),
        }
    }

    /// Renews the lease of a run.
    pub(super) async fn keepalive(&self, id: &str) -> Result<Told, WorkerError> {
        self.tell(self.post(&format!("/active-runs/{id}/keepalive")))
            .await
    }

    /// Sends a bit of a log.
    pub(super) async fn append_log(
        &self,
        id: &str,
        name: &str,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<Told, WorkerError> {
        let range = format!("bytes {offset}-{}/*", offset + bytes.len() as u64 - 1);
        let request = self.request(Method::PATCH, &format!("/active-runs/{id}/logs/{name}"));
        self.tell(
            request
                .header(CONTENT_RANGE, range)
                .header(CONTENT_TYPE, "text/plain")
                .body(bytes),
        )
        .await
    }

    async fn form(report: &Value, files: &[(String, PathBuf)]) -> std::io::Result<Form> {
        let report = Part::bytes(report.to_string().into_bytes()).file_name("result.json");
        let mut form = Form::new().part("metadata", report);
        for (name, path) in files {
            let file = tokio::fs::File::open(path).await?;
            let size = file.metadata().await?.len();
            let part = Part::stream_with_length(Body::wrap_stream(ReaderStream::new(file)), size)
                .file_name(name.clone());
            form = form.part("file", part);
        }
        Ok(form)
    }

    /// Uploads a result. It is tried again when that can help; repeating is safe, since the runner keeps the first.
    pub(super) async fn finish(
        &self,
        id: &str,
        report: &Value,
        files: &[(String, PathBuf)],
    ) -> Result<(), WorkerError> {
        let mut failure = None;
        for pause in UPLOAD_TRIES {
            tokio::time::sleep(Duration::from_secs(pause)).await;
            let form = Self::form(report, files)
                .await
                .map_err(WorkerError::io("read a file to upload"))?;
            let error = match self
                .post(&format!("/active-runs/{id}/finish"))
                .multipart(form)
                .send()
                .await
            {
                Ok(response) if response.status().is_success() => return Ok(()),
                Ok(response)
                    if response.status().is_client_error()
                        && response.status() != StatusCode::REQUEST_TIMEOUT =>
                {
                    return Err(refused(response).await);
                }
                Ok(response) => refused(response).await,
                Err(error) => WorkerError::Unreachable(error),
            };
            tracing::warn!(
                run.id = id,
                error = &error as &dyn std::error::Error,
                "an upload failed, tries again"
            );
            failure = Some(error);
        }
        failure.map_or(Ok(()), Err)
    }
}
