//! The runner's HTTP API, as a worker uses it.

use super::{WorkerConfig, WorkerError, artifacts::UploadFile, regular_file};
use crate::domain::redact::redact;
use crate::{
    adapters::clock::SystemClock,
    domain::{
        run::ResultBranch,
        time::{self, Time},
    },
    http_client::http_client,
    ports::Clock,
};
use chrono::{DateTime, Utc};
use futures::{TryStreamExt, stream};
use reqwest::{
    Body, Client, Method, RequestBuilder, Response, StatusCode,
    header::{CONTENT_RANGE, CONTENT_TYPE, DATE},
    multipart::{Form, Part},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, time::Duration};
use tokio_util::io::ReaderStream;
use url::Url;

/// A heartbeat that takes longer is sent again.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(10);
/// Returns the delays between the attempts to upload a result, by default: 15 minutes in all.
pub fn upload_retry_delays() -> Vec<Duration> {
    let seconds = [1, 2, 4, 8, 15, 30, 60, 120, 180, 240, 240];
    seconds.map(Duration::from_secs).to_vec()
}

/// What the worker has to do for one run.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Assignment {
    /// The id of the run.
    pub(super) id: String,
    /// The name of the codebase.
    pub(super) codebase: String,
    /// The name of the campaign.
    pub(super) campaign: String,
    /// The shell command of the codemod.
    pub(super) command: String,
    /// The branch to change.
    pub(super) branch: Branch,
    /// The earlier result to continue from.
    pub(super) resume: Option<Resume>,
    /// What to build.
    pub(super) build: Build,
    /// The environment of the codemod.
    #[serde(default)]
    pub(super) env: BTreeMap<String, String>,
    /// The repository that the result is pushed to.
    pub(super) target_repository: TargetRepository,
    /// Whether to build even if nothing was changed.
    #[serde(default, rename = "force-build")]
    pub(super) force_build: bool,
    /// When the lease expires, by the runner's clock; none when the runner knows no leases.
    lease_until: Option<String>,
    /// How long the lease lasts after a heartbeat.
    #[serde(skip)]
    pub(super) lease: Option<Duration>,
}

/// The branch to change.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Branch {
    /// The URL of the branch; none when the codebase has none.
    pub(super) url: Option<String>,
    /// The folder of the codebase in the repository.
    pub(super) subpath: Option<String>,
    /// The version control system; none is git.
    pub(super) vcs_type: Option<String>,
    /// Whether a codebase without a branch starts from an empty one.
    #[serde(default, rename = "default-empty")]
    pub(super) default_empty: bool,
    /// The URL of a copy of the branch in the VCS store.
    pub(super) cached_url: Option<String>,
    /// The branches beside this one: a list of names, or an object with their roles.
    #[serde(default)]
    additional_colocated_branches: Value,
}

impl Branch {
    /// Returns the names of the branches beside this one.
    pub(super) fn colocated(&self) -> Vec<String> {
        match &self.additional_colocated_branches {
            Value::Array(names) => {
                let names = names.iter().filter_map(Value::as_str);
                names.map(str::to_owned).collect()
            }
            Value::Object(roles) => roles.keys().cloned().collect(),
            _ => vec![],
        }
    }
}

/// The earlier result to continue from.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Resume {
    /// The result of the script then.
    pub(super) result: Option<Value>,
    /// The URL of the branch with the earlier changes.
    pub(super) branch_url: String,
    /// The branches of the earlier result.
    #[serde(default)]
    branches: Vec<ResultBranch>,
}

impl Resume {
    /// Returns the branch that the script changed.
    pub(super) fn main(&self) -> Option<&ResultBranch> {
        self.branches.iter().find(|branch| branch.role == "main")
    }
}

/// What to build.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Build {
    /// The kind of build.
    pub(super) target: String,
    /// The configuration of the build.
    #[serde(default)]
    pub(super) config: Map<String, Value>,
}

/// The repository that the result is pushed to.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct TargetRepository {
    /// The URL of the repository; none: the result is not pushed.
    pub(super) url: Option<String>,
}

/// The runner's reply to a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum HeartbeatReply {
    /// The run is to continue.
    Continue {
        /// The number of bytes that the runner has of a log, if the heartbeat was a part of one.
        log_size: Option<u64>,
    },
    /// The run is to stop, and its result to be uploaded.
    Cancel {
        /// Why it is to stop.
        reason: String,
    },
    /// The run has ended at the runner.
    RunEnded {
        /// Whether its result is of no use any more.
        superseded: bool,
    },
    /// The runner accepts no more of this log.
    LogFull,
}

/// The body of a reply to a heartbeat.
#[derive(Deserialize, Default)]
#[serde(default)]
struct HeartbeatBody {
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
    /// The request for work, which is the same each time.
    claim_request: Value,
    /// The delays between the attempts to upload a result.
    upload_retry_delays: Vec<Duration>,
}

/// Returns the runner's time, from which the clock of this machine may differ.
fn date_of(response: &Response) -> Time {
    let date = response
        .headers()
        .get(DATE)
        .and_then(|date| date.to_str().ok());
    date.and_then(|date| DateTime::parse_from_rfc2822(date).ok())
        .map_or_else(|| SystemClock.now(), |date| date.with_timezone(&Utc))
}

/// Returns how long a lease lasts.
fn lease_duration(until: &str, now: Time) -> Option<Duration> {
    (time::parse("lease_until", until).ok()? - now)
        .to_std()
        .ok()
}

/// Makes an error of a response that is none of the expected ones.
async fn refused(response: Response) -> WorkerError {
    let (url, status) = (response.url().to_string(), response.status().as_u16());
    let detail = response.text().await.unwrap_or_default();
    WorkerError::Refused {
        url,
        status,
        detail: start_of(&detail),
    }
}

/// Makes an error of a response that no runner sends.
async fn not_a_runner(response: Response) -> WorkerError {
    let (url, status) = (response.url().to_string(), response.status());
    let detail = response.text().await.unwrap_or_default();
    WorkerError::NotARunner {
        url,
        detail: format!("{status}: {}", start_of(&detail)),
    }
}

/// Returns what is shown of a response.
fn start_of(detail: &str) -> String {
    detail.chars().take(500).collect()
}

/// Returns the URL of the runner, if requests can be sent to it.
fn checked_url(url: &str) -> Result<String, WorkerError> {
    let invalid = |reason: String| WorkerError::InvalidUrl {
        url: redact(url),
        reason,
    };
    let parsed = Url::parse(url).map_err(|error| invalid(error.to_string()))?;
    if !["http", "https"].contains(&parsed.scheme()) {
        return Err(invalid(
            "it begins with neither http:// nor https://".into(),
        ));
    }
    if !parsed.has_host() {
        return Err(invalid("it has no host".into()));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

/// Makes a part of a file, which is opened only once its turn comes: there may be more files than a
/// process may have open.
fn file_part(file: &UploadFile) -> Part {
    let path = file.path.clone();
    let open = async move {
        let file = tokio::fs::File::from_std(regular_file::open(&path)?);
        Ok::<_, std::io::Error>(ReaderStream::new(file))
    };
    let body = Body::wrap_stream(stream::once(open).try_flatten());
    Part::stream_with_length(body, file.size).file_name(file.name.clone())
}

impl Api {
    pub(super) fn new(config: &WorkerConfig, backchannel_url: String) -> Result<Self, WorkerError> {
        let claim_request = json!({
            "worker": config.name,
            "codebase": config.codebase,
            "campaign": config.campaign,
            "backchannel": { "kind": "http", "url": backchannel_url },
            "lease": true,
        });
        Ok(Self {
            http: http_client().map_err(WorkerError::Unreachable)?,
            url: checked_url(&config.url)?,
            name: config.name.clone(),
            password: config.password.clone(),
            claim_request,
            upload_retry_delays: config.upload_retry_delays.clone(),
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

    /// Claims the next run. The runner waits for one up to `wait`; none: the queue is empty.
    ///
    /// # Errors
    ///
    /// Returns an error when the runner cannot be reached, or rejects the request.
    pub(super) async fn claim(&self, wait: Duration) -> Result<Option<Assignment>, WorkerError> {
        let request = self
            .post("/active-runs")
            .query(&[("wait", wait.as_secs())])
            .json(&self.claim_request);
        let response = request.send().await.map_err(WorkerError::Unreachable)?;
        match response.status() {
            StatusCode::CREATED => {
                let now = date_of(&response);
                let url = response.url().to_string();
                let body = response.bytes().await.map_err(WorkerError::Unreachable)?;
                let mut assignment: Assignment =
                    serde_json::from_slice(&body).map_err(|error| WorkerError::NotARunner {
                        url,
                        detail: format!("201 with no assignment: {error}"),
                    })?;
                assignment.lease = assignment
                    .lease_until
                    .as_deref()
                    .and_then(|until| lease_duration(until, now));
                Ok(Some(assignment))
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                let reason: Value = response.json().await.unwrap_or_default();
                // The same status is used for an empty queue and for a store that is unavailable.
                let empty = reason.get("reason").and_then(Value::as_str) == Some("queue empty");
                let detail = reason.to_string();
                if empty {
                    Ok(None)
                } else {
                    Err(WorkerError::Refused {
                        url: redact(&self.url),
                        status: 503,
                        detail,
                    })
                }
            }
            StatusCode::UNAUTHORIZED => Err(WorkerError::LoginRefused {
                url: response.url().to_string(),
                name: self.name.clone(),
            }),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                Err(not_a_runner(response).await)
            }
            status if status.is_success() || status.is_redirection() => {
                Err(not_a_runner(response).await)
            }
            _ => Err(refused(response).await),
        }
    }

    async fn send_heartbeat(&self, request: RequestBuilder) -> Result<HeartbeatReply, WorkerError> {
        let response = request
            .timeout(HEARTBEAT_TIMEOUT)
            .send()
            .await
            .map_err(WorkerError::Unreachable)?;
        let status = response.status();
        match status {
            StatusCode::GONE | StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => {
                let body: HeartbeatBody = response.json().await.unwrap_or_default();
                // After a lease that expired, the result may still be accepted; a run that is
                // unknown or another worker's is lost.
                Ok(HeartbeatReply::RunEnded {
                    superseded: body.stop || status != StatusCode::GONE,
                })
            }
            StatusCode::PAYLOAD_TOO_LARGE => Ok(HeartbeatReply::LogFull),
            status if status.is_success() || status == StatusCode::RANGE_NOT_SATISFIABLE => {
                let body: HeartbeatBody =
                    response.json().await.map_err(WorkerError::Unreachable)?;
                Ok(match body.cancel {
                    Some(reason) => HeartbeatReply::Cancel { reason },
                    None => HeartbeatReply::Continue {
                        log_size: body.size,
                    },
                })
            }
            _ => Err(refused(response).await),
        }
    }

    /// Renews the lease of a run.
    ///
    /// # Errors
    ///
    /// Returns an error when the runner cannot be reached, or replies with an unexpected status.
    pub(super) async fn keepalive(&self, id: &str) -> Result<HeartbeatReply, WorkerError> {
        self.send_heartbeat(self.post(&format!("/active-runs/{id}/keepalive")))
            .await
    }

    /// Sends a part of a log, which renews the lease too.
    ///
    /// # Errors
    ///
    /// Returns an error when the runner cannot be reached, or replies with an unexpected status.
    pub(super) async fn append_log(
        &self,
        id: &str,
        name: &str,
        offset: u64,
        bytes: Vec<u8>,
    ) -> Result<HeartbeatReply, WorkerError> {
        let range = format!("bytes {offset}-{}/*", offset + bytes.len() as u64 - 1);
        let request = self.request(Method::PATCH, &format!("/active-runs/{id}/logs/{name}"));
        self.send_heartbeat(
            request
                .header(CONTENT_RANGE, range)
                .header(CONTENT_TYPE, "text/plain")
                .body(bytes),
        )
        .await
    }

    fn form(report: &Map<String, Value>, files: &[UploadFile]) -> serde_json::Result<Form> {
        let report = Part::bytes(serde_json::to_vec(report)?).file_name("result.json");
        let form = Form::new().part("metadata", report);
        Ok(files
            .iter()
            .fold(form, |form, file| form.part("file", file_part(file))))
    }

    async fn try_finish(
        &self,
        id: &str,
        report: &Map<String, Value>,
        files: &[UploadFile],
    ) -> Result<(), WorkerError> {
        let form = Self::form(report, files)
            .map_err(|error| WorkerError::io("write the report")(error.into()))?;
        let request = self.post(&format!("/active-runs/{id}/finish"));
        let response = request
            .multipart(form)
            .send()
            .await
            .map_err(WorkerError::Unreachable)?;
        if response.status().is_success() {
            Ok(())
        } else {
            Err(refused(response).await)
        }
    }

    /// Uploads a result. An attempt that failed is repeated where that can help, which is safe: the
    /// runner keeps the first result and returns it again.
    ///
    /// # Errors
    ///
    /// Returns an error when the runner rejects the result, or all attempts failed.
    pub(super) async fn finish(
        &self,
        id: &str,
        report: &Map<String, Value>,
        files: &[UploadFile],
    ) -> Result<(), WorkerError> {
        let mut delays = self.upload_retry_delays.iter();
        loop {
            let error = match self.try_finish(id, report, files).await {
                Ok(()) => return Ok(()),
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => error,
            };
            let Some(delay) = delays.next() else {
                return Err(error);
            };
            tracing::warn!(
                run.id = id,
                error = &error as &dyn std::error::Error,
                "an upload failed; retrying"
            );
            tokio::time::sleep(*delay).await;
        }
    }
}

/// Returns whether the same upload would fail again.
fn is_final(error: &WorkerError) -> bool {
    match error {
        WorkerError::Refused { status, .. } => {
            (400..500).contains(status) && ![408, 425, 429].contains(status)
        }
        WorkerError::Unreachable(_) => false,
        _ => true,
    }
}
