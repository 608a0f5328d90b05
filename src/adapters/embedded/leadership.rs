//! Leader election on the embedded stores: one process alone has them open, so it always leads.

use super::store::Embedded;
use crate::ports::{Fault, LeaderElection};
use async_trait::async_trait;
use std::time::Duration;

#[async_trait]
impl LeaderElection for Embedded {
    async fn acquire(&self, _: &str, _: &str, _: Duration) -> Result<bool, Fault> {
        Ok(true)
    }

    async fn resign(&self, _: &str, _: &str) -> Result<(), Fault> {
        Ok(())
    }
}
