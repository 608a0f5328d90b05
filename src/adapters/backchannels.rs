//! The way to a worker, whichever it named.

use super::{
    calls::Caller, jenkins::JenkinsBackchannel, none::NoBackchannel, polling::PollingBackchannel,
};
use crate::{
    domain::{
        active_run::{ActiveRun, BackchannelAddress},
        watch::Ping,
    },
    ports::{Backchannel, BackchannelError, artifact_store::FileReader},
};
use async_trait::async_trait;

/// Every kind of backchannel.
#[derive(Debug, Clone)]
pub struct Backchannels {
    caller: Caller,
}

impl Backchannels {
    /// Calls workers through this.
    pub fn new(caller: Caller) -> Self {
        Self { caller }
    }

    fn of(&self, run: &ActiveRun) -> Box<dyn Backchannel> {
        match &run.claimant.backchannel {
            None => Box::new(NoBackchannel),
            Some(BackchannelAddress::Http { url }) => {
                Box::new(PollingBackchannel::new(self.caller.clone(), url))
            }
            Some(BackchannelAddress::Jenkins { url }) => {
                Box::new(JenkinsBackchannel::new(self.caller.clone(), url))
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
