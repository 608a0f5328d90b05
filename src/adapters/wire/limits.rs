//! Concurrency limits.

use crate::{
    domain::{
        Invalid,
        pause::{ConcurrencyLimit, Scope},
    },
    services::limits::Usage,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A concurrency limit.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitRequest {
    /// What is limited: campaign or host.
    pub(crate) kind: String,
    /// The name of the campaign or host.
    pub(crate) name: String,
    /// The maximum number of concurrent runs; 0 allows none.
    pub(crate) most: u32,
}

impl LimitRequest {
    /// Returns the limit.
    ///
    /// # Errors
    ///
    /// When the scope is not valid.
    pub fn limit(&self) -> Result<ConcurrencyLimit, Invalid> {
        Ok(ConcurrencyLimit {
            scope: Scope::parse(&self.kind, Some(&self.name))?,
            most: self.most,
        })
    }
}

impl From<ConcurrencyLimit> for LimitRequest {
    fn from(limit: ConcurrencyLimit) -> Self {
        Self {
            kind: limit.scope.kind().to_owned(),
            name: limit.scope.name().to_owned(),
            most: limit.most,
        }
    }
}

/// A concurrency limit, and how much of it is used.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitResponse {
    #[serde(flatten)]
    pub(crate) limit: LimitRequest,
    /// The number of active runs that count towards it.
    pub(crate) running: usize,
}

impl From<Usage> for LimitResponse {
    fn from(usage: Usage) -> Self {
        Self {
            limit: usage.limit.into(),
            running: usage.running,
        }
    }
}

/// All concurrency limits.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitsResponse {
    /// The limits.
    pub limits: Vec<LimitResponse>,
}
