//! Workers' accounts.

use super::PauseResponse;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A worker's account.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct AccountResponse {
    /// The name that the worker logs in with.
    pub(crate) name: String,
    /// Where people find out about the worker.
    pub(crate) link: Option<String>,
    /// The ids of the runs that it holds.
    pub(crate) runs: Vec<String>,
    /// When it made its last request.
    pub(crate) last_seen: Option<String>,
    /// The number of its last consecutive runs that failed because of the worker.
    pub(crate) failures: u32,
    /// Why it gets no work; null while it does.
    pub(crate) paused: Option<PauseResponse>,
}

/// A page of the workers' accounts.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountsResponse {
    /// The accounts.
    pub(crate) workers: Vec<AccountResponse>,
    /// The cursor of the next page.
    pub(crate) next: Option<String>,
}

/// A worker to add.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct NewWorkerRequest {
    /// The name that the worker logs in with.
    pub(crate) name: String,
    /// The password; a random one is made when it is left out.
    pub(crate) password: Option<String>,
    /// Where people find out about the worker.
    pub(crate) link: Option<String>,
}

/// A worker that was added, or that has a new password.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PasswordResponse {
    /// The name that the worker logs in with.
    pub(crate) name: String,
    /// The password that was made; it is shown only once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<String>,
}
