//! For deployments that do not probe branches.

use crate::{
    domain::{codebase::Codebase, name::CampaignName},
    ports::{
        Vcs,
        vcs::{EarlierBranch, Probe},
    },
};
use async_trait::async_trait;

/// Probes nothing: every branch is unknown.
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
