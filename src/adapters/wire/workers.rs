//! Workers and their accounts.

use super::PauseResponse;
use crate::{domain::time::iso, services::workers::WorkerState};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use utoipa::ToSchema;

/// A worker, and whether it is busy.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct BusyResponse {
    /// The name of the worker.
    pub(crate) name: String,
    /// `active` or `idle`.
    pub(crate) status: Cow<'static, str>,
}

impl From<WorkerState> for BusyResponse {
    fn from(worker: WorkerState) -> Self {
        Self {
            status: if worker.holds.is_empty() {
                "idle".into()
            } else {
                "active".into()
            },
            name: worker.account.name,
        }
    }
}

/// A page of workers, and how many are busy.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WorkersResponse {
    /// The workers of this page, by name.
    pub(crate) workers: Vec<BusyResponse>,
    /// The number of all workers.
    pub(crate) total: usize,
    /// The number of workers that hold a run.
    pub(crate) active: usize,
    /// The number of workers that hold none.
    pub(crate) idle: usize,
    /// The cursor of the next page; null after the last one.
    pub(crate) next: Option<String>,
}

impl WorkersResponse {
    /// Creates the response for a page out of `total` workers, of which `active` are busy.
    pub fn new(page: Vec<WorkerState>, next: Option<String>, total: usize, active: usize) -> Self {
        Self {
            workers: page.into_iter().map(Into::into).collect(),
            total,
            active,
            idle: total - active,
            next,
        }
    }
}

/// A worker's account.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct AccountResponse {
    /// The name of the worker.
    pub(crate) name: String,
    /// A page about the worker, for people to read.
    pub(crate) link: Option<String>,
    /// The ids of the runs that it holds.
    pub(crate) runs: Vec<String>,
    /// The time at which it last took or finished a run or sent a heartbeat; null when it never
    /// did.
    pub(crate) last_seen: Option<String>,
    /// The number of its last runs in a row that failed because of the worker.
    pub(crate) failures: u32,
    /// The pause that keeps it from work; null while there is none.
    pub(crate) paused: Option<PauseResponse>,
}

impl From<WorkerState> for AccountResponse {
    fn from(worker: WorkerState) -> Self {
        Self {
            name: worker.account.name,
            link: worker.account.link,
            runs: worker.holds.iter().map(ToString::to_string).collect(),
            last_seen: worker.account.last_seen.map(iso),
            failures: worker.account.failures,
            paused: worker.pause.map(Into::into),
        }
    }
}

/// A page of workers' accounts.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct AccountsResponse {
    /// The accounts of this page, by name.
    pub(crate) workers: Vec<AccountResponse>,
    /// The cursor of the next page; null after the last one.
    pub(crate) next: Option<String>,
}

impl AccountsResponse {
    /// Creates the response for a page.
    pub fn new(page: Vec<WorkerState>, next: Option<String>) -> Self {
        Self {
            workers: page.into_iter().map(Into::into).collect(),
            next,
        }
    }
}

/// A worker to add.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct NewWorkerRequest {
    /// The name of the worker, by which it logs in.
    pub name: String,
    /// The password; one is generated when it is absent.
    pub password: Option<String>,
    /// A page about the worker, for people to read.
    pub link: Option<String>,
}

/// A worker that was added, or that has a new password.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PasswordResponse {
    /// The name of the worker.
    pub name: String,
    /// The generated password. It is shown only here; absent when the request set one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}
