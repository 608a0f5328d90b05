//! For deployments that do not probe branches.

use crate::{
    domain::branch_query::BranchQuery,
    ports::{Vcs, vcs::Probe},
};
use async_trait::async_trait;

/// Probes nothing: every branch is unknown.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoVcs;

#[async_trait]
impl Vcs for NoVcs {
    async fn probe(&self, _query: &BranchQuery) -> Probe {
        Probe::Unknown("branches are not probed".to_owned())
    }
}
