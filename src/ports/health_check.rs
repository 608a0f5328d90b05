//! The health check of systems that no other port covers.

use super::Fault;
use async_trait::async_trait;

/// A system besides the stores whose state an operator wants to know.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait HealthCheck: Send + Sync {
    /// Returns when the system can be used right now.
    ///
    /// # Errors
    ///
    /// [`Fault`] with the reason when it cannot.
    async fn health_check(&self) -> Result<(), Fault>;
}
