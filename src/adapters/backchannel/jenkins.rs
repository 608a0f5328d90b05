//! Workers that are Jenkins jobs: whether the job goes on, its console, and its end.

use super::polling::{answered, of_failure, unreachable};
use crate::{
    adapters::support::guarded_http::GuardedClient,
    domain::{active_run::ActiveRun, watch::Ping},
    ports::{Backchannel, BackchannelError, artifact_store::FileReader},
};
use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use serde::Deserialize;

/// The one log that there is.
const CONSOLE: &str = "worker.log";

/// Asks Jenkins about a job.
#[derive(Debug, Clone)]
pub struct JenkinsBackchannel {
    caller: GuardedClient,
    /// Where the job is.
    url: String,
}

#[derive(Deserialize)]
struct Job {
    result: Option<String>,
    building: Option<bool>,
}

impl JenkinsBackchannel {
    /// The job at that URL.
    pub fn new(caller: GuardedClient, url: &str) -> Self {
        Self {
            caller,
            url: url.to_owned(),
        }
    }
}

fn judge(job: &Job) -> Ping {
    match job.result.as_deref() {
        Some(result @ ("FAILURE" | "ABORTED" | "NOT_BUILT")) => {
            Ping::Fatal(format!("Jenkins lists the job as {result}"))
        }
        // Its result may be on its way; if not, the run times out.
        Some(result) if job.building == Some(false) => {
            Ping::Failed(format!("Jenkins lists the job as ended with {result}"))
        }
        Some(_) | None => Ping::Alive,
    }
}

#[async_trait]
impl Backchannel for JenkinsBackchannel {
    async fn ping(&self, _run: &ActiveRun) -> Ping {
        let asked = async {
            self.caller
                .ask(
                    Method::GET,
                    &GuardedClient::url(&self.url, &["api", "json"])?,
                )
                .await
        };
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(error) => return of_failure(error),
        };
        match answer.status {
            StatusCode::NOT_FOUND => Ping::Fatal("Jenkins has no such job".to_owned()),
            status if !status.is_success() => Ping::Failed(format!("Jenkins answers {status}")),
            _ => match serde_json::from_slice(&answer.body) {
                Ok(job) => judge(&job),
                Err(error) => Ping::Failed(format!("Jenkins does not answer with a job: {error}")),
            },
        }
    }

    async fn kill(&self, _run: &ActiveRun) -> Result<(), BackchannelError> {
        let url = GuardedClient::url(&self.url, &["stop"]).map_err(unreachable)?;
        let status = self
            .caller
            .ask(Method::POST, &url)
            .await
            .map_err(unreachable)?
            .status;
        // Jenkins sends the caller back to the job's page.
        if status.is_success() || status.is_redirection() {
            Ok(())
        } else {
            Err(answered(status))
        }
    }

    async fn list_logs(&self, _run: &ActiveRun) -> Result<Vec<String>, BackchannelError> {
        Ok(vec![CONSOLE.to_owned()])
    }

    async fn read_log(
        &self,
        _run: &ActiveRun,
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
        let opened = self.caller.open(&url, 0).await.map_err(unreachable)?;
        let size = opened
            .0
            .headers()
            .get("x-text-size")
            .and_then(|size| size.to_str().ok()?.parse::<u64>().ok());
        match opened.0.status() {
            // A start beyond the end begins anew.
            status if status.is_success() && size.is_some_and(|size| size < offset) => {
                Ok(Box::new(tokio::io::empty()))
            }
            status if status.is_success() => Ok(self.caller.body(opened)),
            StatusCode::NOT_FOUND => Err(BackchannelError::NoSuchLog),
            status => Err(answered(status)),
        }
    }
}
