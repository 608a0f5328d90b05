//! Workers that serve HTTP themselves: which run they are on, its logs, and the order to stop. Both generations: the id is
//! plain text, or JSON: a string, or null while idle.

use super::super::support::guarded_http::{GuardedClient, GuardedHttpError};
use crate::{
    domain::{active_run::ActiveRun, watch::Ping},
    ports::{Backchannel, BackchannelError, artifact_store::FileReader},
};
use async_trait::async_trait;
use reqwest::{Method, StatusCode};
use tokio::io::AsyncReadExt;

const LONGEST_ID: usize = 200;

/// Asks workers that serve HTTP.
#[derive(Debug, Clone)]
pub struct PollingBackchannel {
    caller: GuardedClient,
    /// Where the worker is.
    url: String,
}

/// What a worker says it is on.
enum Says {
    Idle,
    On(String),
    Nonsense,
}

fn read_id(body: &[u8]) -> Says {
    let Ok(text) = std::str::from_utf8(body) else {
        return Says::Nonsense;
    };
    let text = text.trim();
    let id = match serde_json::from_str::<Option<String>>(text) {
        Ok(id) => id.unwrap_or_default(),
        Err(_) => text.to_owned(),
    };
    let is_id = id.len() <= LONGEST_ID
        && id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.+~".contains(c));
    match id {
        id if id.is_empty() => Says::Idle,
        id if is_id => Says::On(id),
        _ => Says::Nonsense,
    }
}

/// What a failed call says of the run.
pub(super) fn of_failure(error: GuardedHttpError) -> Ping {
    match error {
        GuardedHttpError::Refused(_) => Ping::Fatal(error.to_string()),
        GuardedHttpError::Forbidden(_) => Ping::Impossible,
        GuardedHttpError::TooSlow(_) | GuardedHttpError::Failed(_) => {
            Ping::Failed(error.to_string())
        }
    }
}

pub(super) fn unreachable(error: GuardedHttpError) -> BackchannelError {
    BackchannelError::Unreachable(error.to_string())
}

pub(super) fn answered(status: StatusCode) -> BackchannelError {
    BackchannelError::Unreachable(format!("it answers {status}"))
}

impl PollingBackchannel {
    /// The worker at that URL.
    pub fn new(caller: GuardedClient, url: &str) -> Self {
        Self {
            caller,
            url: url.to_owned(),
        }
    }

    async fn says(&self) -> Result<Says, GuardedHttpError> {
        let answer = self
            .caller
            .ask(Method::GET, &GuardedClient::url(&self.url, &["log-id"])?)
            .await?;
        match answer.status.is_success() {
            true => Ok(read_id(&answer.body)),
            false => Err(GuardedHttpError::Failed(format!(
                "it answers {}",
                answer.status
            ))),
        }
    }
}

#[async_trait]
impl Backchannel for PollingBackchannel {
    async fn ping(&self, run: &ActiveRun) -> Ping {
        match self.says().await {
            Ok(Says::On(id)) if id == run.id.as_str() => Ping::Alive,
            Ok(Says::On(id)) => Ping::Fatal(format!("the worker is on another run, {id}")),
            Ok(Says::Idle) => Ping::Fatal("the worker is idle".to_owned()),
            Ok(Says::Nonsense) => {
                Ping::Failed("it does not answer with the id of a run".to_owned())
            }
            Err(error) => of_failure(error),
        }
    }

    async fn kill(&self, run: &ActiveRun) -> Result<(), BackchannelError> {
        // The order names no run: whatever the worker is on would be stopped.
        match self.says().await.map_err(unreachable)? {
            Says::On(id) if id != run.id.as_str() => {
                return Err(BackchannelError::Unreachable(format!(
                    "the worker is on another run, {id}"
                )));
            }
            Says::Idle => {
                return Err(BackchannelError::Unreachable(
                    "the worker is idle".to_owned(),
                ));
            }
            Says::On(_) | Says::Nonsense => {}
        }
        let url = GuardedClient::url(&self.url, &["kill"]).map_err(unreachable)?;
        let status = self
            .caller
            .ask(Method::POST, &url)
            .await
            .map_err(unreachable)?
            .status;
        match status {
            StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::NOT_IMPLEMENTED => Err(BackchannelError::Unsupported("kill")),
            status if status.is_success() => Ok(()),
            status => Err(answered(status)),
        }
    }

    async fn list_logs(&self, _run: &ActiveRun) -> Result<Vec<String>, BackchannelError> {
        let url = GuardedClient::url(&self.url, &["logs"]).map_err(unreachable)?;
        let answer = self
            .caller
            .ask(Method::GET, &url)
            .await
            .map_err(unreachable)?;
        if !answer.status.is_success() {
            return Err(answered(answer.status));
        }
        serde_json::from_slice(&answer.body).map_err(|e| {
            BackchannelError::Unreachable(format!("it does not answer with a list of names: {e}"))
        })
    }

    async fn read_log(
        &self,
        _run: &ActiveRun,
        name: &str,
        offset: u64,
    ) -> Result<FileReader, BackchannelError> {
        let url = GuardedClient::url(&self.url, &["logs", name]).map_err(unreachable)?;
        let opened = self.caller.open(&url, offset).await.map_err(unreachable)?;
        match opened.0.status() {
            StatusCode::PARTIAL_CONTENT => Ok(self.caller.body(opened)),
            StatusCode::RANGE_NOT_SATISFIABLE => Ok(Box::new(tokio::io::empty())),
            StatusCode::NOT_FOUND => Err(BackchannelError::NoSuchLog),
            status if status.is_success() => {
                // It sends all of it.
                let mut body = self.caller.body(opened);
                let skipped =
                    tokio::io::copy(&mut (&mut body).take(offset), &mut tokio::io::sink()).await;
                skipped.map_err(|e| BackchannelError::Unreachable(e.to_string()))?;
                Ok(body)
            }
            status => Err(answered(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_generations_say_what_they_are_on() {
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
            let said = match read_id(body.as_bytes()) {
                Says::Idle => Some(String::new()),
                Says::On(id) => Some(id),
                Says::Nonsense => None,
            };
            assert_eq!(said.as_deref(), expected, "{body}");
        }
        assert!(matches!(read_id(&[0xff]), Says::Nonsense));
    }
}
