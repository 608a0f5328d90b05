//! The workers of the demo.

use super::{super::client::Server, GIT_CONFIG};
use crate::{
    adapters::wire::{NewWorkerRequest, PasswordResponse},
    worker::{Shutdown, WorkerConfig, WorkerError, upload_retry_delays, work},
};
use anyhow::Result;
use std::{path::PathBuf, time::Duration};
use tokio::task::JoinSet;

/// The number of accounts, and of workers in the first round.
pub(super) const WORKERS: usize = 2;

/// Workers of the demo, which have accounts.
pub(super) struct Workers {
    /// The names and passwords of the accounts.
    accounts: Vec<(String, Option<String>)>,
    /// The URL that they use.
    url: String,
    /// The folder of the demo.
    home: PathBuf,
}

/// Which work a worker does.
#[derive(Debug, Clone, Default)]
pub(super) struct Work {
    /// Runs of this campaign only.
    pub(super) campaign: Option<String>,
    /// Runs of this codebase only.
    pub(super) codebase: Option<String>,
    /// One run only.
    pub(super) once: bool,
}

impl Workers {
    /// Adds the accounts.
    pub(super) async fn add(server: &Server, url: String, home: PathBuf) -> Result<Self> {
        let mut accounts = vec![];
        for number in 1..=WORKERS {
            let name = format!("demo-{number}");
            let request = NewWorkerRequest {
                name: name.clone(),
                password: None,
                link: None,
            };
            let account = server
                .post::<PasswordResponse, _>(&["admin", "workers"], &request)
                .await?
                .parse()?;
            accounts.push((name, account.password));
        }
        Ok(Self {
            accounts,
            url,
            home,
        })
    }

    /// Starts a worker for each of these, which share the accounts.
    pub(super) fn start(
        &self,
        works: Vec<Work>,
        shutdown: &Shutdown,
    ) -> JoinSet<Result<(), WorkerError>> {
        let mut started = JoinSet::new();
        let accounts = self.accounts.iter().cycle();
        for (number, (one, (name, password))) in works.into_iter().zip(accounts).enumerate() {
            let config = WorkerConfig {
                url: self.url.clone(),
                password: password.clone(),
                work_dir: self.home.join("work").join(number.to_string()),
                name: name.clone(),
                campaign: one.campaign,
                codebase: one.codebase,
                backchannel: ([127, 0, 0, 1], 0).into(),
                backchannel_url: None,
                timeout: Duration::from_secs(300),
                build_command: None,
                git_config: Some(self.home.join(GIT_CONFIG)),
                pass_env: vec![],
                run_as: None,
                sandbox: None,
                owns_process: false,
                upload_retry_delays: upload_retry_delays(),
                idle: Duration::from_millis(200),
                until_empty: false,
                once: one.once,
            };
            started.spawn(work(config, shutdown.clone()));
        }
        started
    }
}
