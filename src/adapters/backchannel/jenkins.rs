//! Workers that are Jenkins jobs: pings read the state of the job, its console is the only log, and
//! a kill stops it.

use super::failure::{ping_of_failure, unexpected_status, unreachable};
use crate::{
    adapters::support::guarded_http::GuardedClient,
    domain::{active_run::ActiveRun, watch::Ping},
    ports::{Backchannel, BackchannelError, artifact_store::FileReader},
};
use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

/// The name of the only log.
const CONSOLE: &str = "worker.log";
/// How many bytes the description of a job may have. A Jenkins, or a proxy before it, that ignores
/// the selection of fields sends all that is known.
const MAX_JOB_SIZE: u64 = 16 << 20;

/// Reaches the Jenkins job of a run.
#[derive(Debug, Clone)]
pub struct JenkinsBackchannel {
    client: GuardedClient,
    /// The URL of the job.
    url: String,
}

#[derive(Deserialize)]
struct Job {
    result: Option<String>,
    building: Option<bool>,
}

impl JenkinsBackchannel {
    /// Creates the backchannel of the job at that URL.
    pub fn new(client: GuardedClient, url: &str) -> Self {
        Self {
            client,
            url: url.to_owned(),
        }
    }
}

/// Returns what the state of the job says about the run.
fn judge(job: &Job) -> Ping {
    match job.result.as_deref() {
        Some(result @ ("FAILURE" | "ABORTED" | "NOT_BUILT")) => {
            Ping::Fatal(format!("Jenkins lists the job as {result}"))
        }
        // Its result may still be uploading. If not, the run is abandoned after its timeout.
        Some(result) if job.building == Some(false) => {
            Ping::Failed(format!("Jenkins lists the job as ended with {result}"))
        }
        Some(_) | None => Ping::Alive,
    }
}

#[async_trait]
impl Backchannel for JenkinsBackchannel {
    #[tracing::instrument(
        name = "backchannel.jenkins.ping", level = "debug", skip_all, fields(run.id = %run.id)
    )]
    async fn ping(&self, run: &ActiveRun) -> Ping {
        let request = async {
            let mut url = GuardedClient::url(&self.url, &["api", "json"])?;
            // All that Jenkins knows of a job, such as its changes and artifacts, may be megabytes.
            url.query_pairs_mut().append_pair("tree", "building,result");
            self.client.read_json(&url, MAX_JOB_SIZE).await
        };
        match request.await {
            Err(error) => ping_of_failure(error),
            Ok((StatusCode::NOT_FOUND, _)) => Ping::Fatal("Jenkins has no such job".to_owned()),
            Ok((status, _)) if !status.is_success() => {
                Ping::Failed(format!("Jenkins answers {status}"))
            }
            Ok((_, Ok(job))) => judge(&job),
            Ok((_, Err(error))) => {
                Ping::Failed(format!("Jenkins does not answer with a job: {error}"))
            }
        }
    }

    #[tracing::instrument(
        name = "backchannel.jenkins.kill", level = "debug", skip_all, fields(run.id = %run.id)
    )]
    async fn kill(&self, run: &ActiveRun) -> Result<(), BackchannelError> {
        let url = GuardedClient::url(&self.url, &["stop"]).map_err(unreachable)?;
        let status = self
            .client
            .request(Method::POST, &url)
            .await
            .map_err(unreachable)?
            .status;
        // Jenkins redirects to the page of the job.
        if status.is_success() || status.is_redirection() {
            Ok(())
        } else {
            Err(unexpected_status(status))
        }
    }

    async fn list_logs(&self, _run: &ActiveRun) -> Result<Vec<String>, BackchannelError> {
        Ok(vec![CONSOLE.to_owned()])
    }

    #[tracing::instrument(
        name = "backchannel.jenkins.read_log", level = "debug", skip_all,
        fields(run.id = %run.id, offset)
    )]
    async fn read_log(
        &self,
        run: &ActiveRun,
        name: &str,
        offset: u64,
    ) -> Result<FileReader, BackchannelError> {
        if name != CONSOLE {
            return Err(BackchannelError::NoSuchLog);
        }
        let mut url =
            GuardedClient::url(&self.url, &["logText", "progressiveText"]).map_err(unreachable)?;
        url.query_pairs_mut()
            .append_pair("start", &offset.to_string());
        let download = self.client.open(&url, 0).await.map_err(unreachable)?;
        let size = download
            .headers()
            .get("x-text-size")
            .and_then(|size| size.to_str().ok()?.parse::<u64>().ok());
        match download.status() {
            // Given a start beyond the end, Jenkins sends the console from its beginning.
            status if status.is_success() && size.is_some_and(|size| size < offset) => {
                Ok(Box::new(tokio::io::empty()))
            }
            status if status.is_success() => Ok(download.into_reader()),
            StatusCode::NOT_FOUND => Err(BackchannelError::NoSuchLog),
            status => Err(unexpected_status(status)),
        }
    }
}
