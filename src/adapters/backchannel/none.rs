//! The backchannel of runs whose workers named none.

use crate::{
    domain::{active_run::ActiveRun, watch::Ping},
    ports::{Backchannel, BackchannelError, artifact_store::FileReader},
};
use async_trait::async_trait;

/// A backchannel that supports nothing.
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
