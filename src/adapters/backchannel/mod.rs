//! How the runner reaches the worker of an active run: one file for each kind of worker.
//!
//! A new kind gets a variant of [`BackchannelAddress`], a file here, and an arm in
//! [`Backchannels`].

mod failure;
pub mod jenkins;
pub mod none;
pub mod polling;

use super::support::guarded_http::GuardedClient;
use crate::{
    domain::{
        active_run::{ActiveRun, BackchannelAddress},
        watch::Ping,
    },
    ports::{Backchannel, BackchannelError, artifact_store::FileReader},
};
use async_trait::async_trait;
use jenkins::JenkinsBackchannel;
use none::NoBackchannel;
use polling::PollingBackchannel;

/// Reaches each worker by the kind of backchannel that it named.
#[derive(Debug, Clone)]
pub struct Backchannels {
    client: GuardedClient,
}

impl Backchannels {
    /// Sends requests to workers through this client.
    pub fn new(client: GuardedClient) -> Self {
        Self { client }
    }

    /// Returns the backchannel of a run.
    fn of(&self, run: &ActiveRun) -> Box<dyn Backchannel> {
        match &run.claimant.backchannel {
            None => Box::new(NoBackchannel),
            Some(BackchannelAddress::Http { url }) => {
                Box::new(PollingBackchannel::new(self.client.clone(), url))
            }
            Some(BackchannelAddress::Jenkins { url }) => {
                Box::new(JenkinsBackchannel::new(self.client.clone(), url))
            }
        }
    }
}

#[async_trait]
impl Backchannel for Backchannels {
    async fn ping(&self, run: &ActiveRun) -> Ping {
        self.of(run).ping(run).await
    }

    async fn kill(&self, run: &ActiveRun) -> Result<(), BackchannelError> {
        self.of(run).kill(run).await
    }

    async fn list_logs(&self, run: &ActiveRun) -> Result<Vec<String>, BackchannelError> {
        self.of(run).list_logs(run).await
    }

    async fn read_log(
        &self,
        run: &ActiveRun,
        name: &str,
        offset: u64,
    ) -> Result<FileReader, BackchannelError> {
        self.of(run).read_log(run, name, offset).await
    }
}
