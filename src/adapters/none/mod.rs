//! For what a deployment does without.

use crate::{
    domain::{active_run::ActiveRun, codebase::Codebase, name::CampaignName, watch::Ping},
    ports::{
        Backchannel, BackchannelError, Vcs,
        artifact_store::FileReader,
        vcs::{EarlierBranch, Probe},
    },
};
use async_trait::async_trait;

/// No way to reach workers.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBackchannel;

#[async_trait]
impl Backchannel for NoBackchannel {
    async fn ping(&self, _run: &ActiveRun) -> Ping {
        Ping::Impossible
    }

    async fn kill(&self, _run: &ActiveRun) -> Result<(), BackchannelError> {
        Err(BackchannelError::Unsupported("kill"))
    }

    async fn list_logs(&self, _run: &ActiveRun) -> Result<Vec<String>, BackchannelError> {
        Err(BackchannelError::Unsupported("reading logs"))
    }

    async fn read_log(
        &self,
        _run: &ActiveRun,
        _name: &str,
        _offset: u64,
    ) -> Result<FileReader, BackchannelError> {
        Err(BackchannelError::Unsupported("reading logs"))
    }
}

/// No looking at branches.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoVcs;

#[async_trait]
impl Vcs for NoVcs {
    async fn probe(&self, _codebase: &Codebase) -> Probe {
        Probe::Unknown("branches are not probed".to_owned())
    }

    async fn earlier_branch(
        &self,
        _codebase: &Codebase,
        _campaign: &CampaignName,
    ) -> Option<EarlierBranch> {
        None
    }
}
