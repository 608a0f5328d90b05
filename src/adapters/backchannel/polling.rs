//! Workers that serve HTTP themselves: the id of their run, its logs, and a request to stop it.
//!
//! There are two generations: one sends the id as plain text, the other as JSON, a string or null
//! while idle.

use super::failure::{ping_of_failure, unexpected_status, unreachable};
use crate::{
    adapters::support::guarded_http::{GuardedClient, GuardedHttpError},
    domain::{active_run::ActiveRun, watch::Ping},
    ports::{Backchannel, BackchannelError, artifact_store::FileReader},
};
use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use tokio::io::AsyncReadExt;

/// How many bytes the id of a run may have.
const MAX_ID_LENGTH: usize = 200;

/// Reaches a worker that serves HTTP.
#[derive(Debug, Clone)]
pub struct PollingBackchannel {
    client: GuardedClient,
    /// The URL of the worker.
    url: String,
}

/// Which run a worker reports to be working on.
enum ReportedRun {
    /// None.
    Idle,
    /// The run of that id.
    Run(String),
    /// The response is no id.
    Unreadable,
}

/// Reads the id of a run from the body of a response of either generation.
fn read_id(body: &[u8]) -> ReportedRun {
    let Ok(text) = std::str::from_utf8(body) else {
        return ReportedRun::Unreadable;
    };
    let text = text.trim();
    let id = match serde_json::from_str::<Option<String>>(text) {
        Ok(id) => id.unwrap_or_default(),
        Err(_) => text.to_owned(),
    };
    let is_id = id.len() <= MAX_ID_LENGTH
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.+~".contains(c));
    match id {
        id if id.is_empty() => ReportedRun::Idle,
        id if is_id => ReportedRun::Run(id),
        _ => ReportedRun::Unreadable,
    }
}

impl PollingBackchannel {
    /// Creates the backchannel of the worker at that URL.
    pub fn new(client: GuardedClient, url: &str) -> Self {
        Self {
            client,
            url: url.to_owned(),
        }
    }

    /// Requests the id of the run that the worker is working on.
    async fn reported_run(&self) -> Result<ReportedRun, GuardedHttpError> {
        let response = self
            .client
            .request(Method::GET, &GuardedClient::url(&self.url, &["log-id"])?)
            .await?;
        match response.status.is_success() {
            true => Ok(read_id(&response.body)),
            false => Err(GuardedHttpError::Failed(format!(
                "it answers {}",
                response.status
            ))),
        }
    }
}

#[async_trait]
impl Backchannel for PollingBackchannel {
    #[tracing::instrument(
        name = "backchannel.polling.ping", level = "debug", skip_all, fields(run.id = %run.id)
    )]
    async fn ping(&self, run: &ActiveRun) -> Ping {
        match self.reported_run().await {
            Ok(ReportedRun::Run(id)) if id == run.id.as_str() => Ping::Alive,
            Ok(ReportedRun::Run(id)) => Ping::Fatal(format!("the worker is on another run, {id}")),
            Ok(ReportedRun::Idle) => Ping::Fatal("the worker is idle".to_owned()),
            Ok(ReportedRun::Unreadable) => {
                Ping::Failed("it does not answer with the id of a run".to_owned())
            }
            Err(error) => ping_of_failure(error),
        }
    }

    #[tracing::instrument(
        name = "backchannel.polling.kill", level = "debug", skip_all, fields(run.id = %run.id)
    )]
    async fn kill(&self, run: &ActiveRun) -> Result<(), BackchannelError> {
        // The request to stop names no run: without this check it would stop whatever the worker is
        // working on.
        match self.reported_run().await.map_err(unreachable)? {
            ReportedRun::Run(id) if id != run.id.as_str() => {
                return Err(BackchannelError::Unreachable(format!(
                    "the worker is on another run, {id}"
                )));
            }
            ReportedRun::Idle => {
                return Err(BackchannelError::Unreachable(
                    "the worker is idle".to_owned(),
                ));
            }
            ReportedRun::Run(_) | ReportedRun::Unreadable => {}
        }
        let url = GuardedClient::url(&self.url, &["kill"]).map_err(unreachable)?;
        let status = self
            .client
            .request(Method::POST, &url)
            .await
            .map_err(unreachable)?
            .status;
        match status {
            StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => Err(BackchannelError::Unsupported("kill")),
            status if status.is_success() => Ok(()),
            status => Err(unexpected_status(status)),
        }
    }

    #[tracing::instrument(
        name = "backchannel.polling.list_logs", level = "debug", skip_all,
        fields(run.id = %run.id)
    )]
    async fn list_logs(&self, run: &ActiveRun) -> Result<Vec<String>, BackchannelError> {
        // Some workers serve the list only with the slash at the end, and some redirect to it.
        for path in [&["logs"] as &[&str], &["logs", ""]] {
            let url = GuardedClient::url(&self.url, path).map_err(unreachable)?;
            let response = self
                .client
                .request(Method::GET, &url)
                .await
                .map_err(unreachable)?;
            match response.status {
                status if status.is_success() => {
                    return serde_json::from_slice(&response.body).map_err(|e| {
                        BackchannelError::Unreachable(format!(
                            "it does not answer with a list of names: {e}"
                        ))
                    });
                }
                StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {}
                status if status.is_redirection() => {}
                status => return Err(unexpected_status(status)),
            }
        }
        // A worker that shows no logs has none to read.
        Ok(vec![])
    }

    #[tracing::instrument(
        name = "backchannel.polling.read_log", level = "debug", skip_all,
        fields(run.id = %run.id, offset)
    )]
    async fn read_log(
        &self,
        run: &ActiveRun,
        name: &str,
        offset: u64,
    ) -> Result<FileReader, BackchannelError> {
        let url = GuardedClient::url(&self.url, &["logs", name]).map_err(unreachable)?;
        let download = self.client.open(&url, offset).await.map_err(unreachable)?;
        match download.status() {
            StatusCode::PARTIAL_CONTENT => Ok(download.into_reader()),
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(Box::new(tokio::io::empty())),
            StatusCode::NOT_FOUND => Err(BackchannelError::NoSuchLog),
            status if status.is_success() => {
                // The worker does not support ranges and sends the whole log: skip what was read
                // before.
                let mut body = download.into_reader();
                let skipped =
                    tokio::io::copy(&mut (&mut body).take(offset), &mut tokio::io::sink()).await;
                skipped.map_err(|e| BackchannelError::Unreachable(e.to_string()))?;
                Ok(body)
            }
            status => Err(unexpected_status(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_is_read_from_both_generations() {
        for (body, expected) in [
            ("r-1\n", Some("r-1")),
            ("\"r-1\"", Some("r-1")),
            ("", Some("")),
            ("null", Some("")),
            ("\"\"", Some("")),
            ("<html>", None),
            ("{\"id\": 1}", None),
            ("two words", None),
        ] {
            let id = match read_id(body.as_bytes()) {
                ReportedRun::Idle => Some(String::new()),
                ReportedRun::Run(id) => Some(id),
                ReportedRun::Unreadable => None,
            };
            assert_eq!(id.as_deref(), expected, "{body}");
        }
        let not_utf8 = read_id(&[0xff]);
        assert!(matches!(not_utf8, ReportedRun::Unreadable));
    }

    proptest::proptest! {
        #[test]
        fn any_response_is_an_id_or_none(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..2000),
            text in "[\\[\\]{}\",:0-9a-z\\\\ ]{0,100}",
        ) {
            for body in [bytes.as_slice(), text.as_bytes()] {
                if let ReportedRun::Run(id) = read_id(body) {
                    proptest::prop_assert!(id.len() <= MAX_ID_LENGTH);
                    proptest::prop_assert!(!id.contains(char::is_control));
                }
                drop(serde_json::from_slice::<Vec<String>>(body));
            }
        }
    }
}
