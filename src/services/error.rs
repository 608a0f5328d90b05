//! The errors of use cases. `adapters/http/error.rs` maps each to a status.

use crate::{
    domain::{Invalid, name::RunId, time::Time},
    ports::{
        ActiveRunStoreError, BackchannelError, CatalogError, CredentialsError, Fault,
        QueueStoreError, RunStoreError,
    },
};

/// Why a use case failed.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Something that the request names does not exist.
    #[error("no such {what}: {id}")]
    NotFound {
        /// The kind of thing.
        what: &'static str,
        /// Its id or name.
        id: String,
    },
    /// The input breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Neither the request, the candidate, the campaign nor the earlier run has a command.
    #[error("no command specified")]
    NoCommand,
    /// No item can be assigned now.
    #[error("queue empty")]
    QueueEmpty,
    /// The worker, or everything, is paused. Carries what is paused, and why.
    #[error("{0}")]
    WorkerPaused(String),
    /// All items that could be assigned are on hosts that are backing off, the first until then.
    #[error("every remaining host is rate limited until {0}")]
    RateLimited(Time),
    /// The worker uses as much as one may use. Carries what that is.
    #[error("{0}")]
    TooManyOfWorker(String),
    /// Another worker holds the run.
    #[error("run {0} is held by another worker")]
    NotYours(RunId),
    /// The run is not active any more.
    #[error("run {run} is not active any more")]
    Gone {
        /// The run.
        run: RunId,
        /// Whether the worker should stop: the run has a result, or its item was claimed again.
        stop: bool,
    },
    /// The chunk of a log begins after the end of the log, which has that many bytes.
    #[error("the log has {0} bytes")]
    Gap(u64),
    /// The request is larger than is accepted.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The maximum size, in bytes.
        limit: u64,
    },
    /// This process is stopping.
    #[error("the runner is stopping")]
    Stopping,
    /// The request conflicts with the current state.
    #[error("{0}")]
    Conflict(String),
    /// The request cannot be fulfilled for this run.
    #[error("{0}")]
    Unsupported(String),
    /// The worker did not respond, or not as it should.
    #[error("{0}")]
    WorkerUnreachable(String),
    /// A store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl ServiceError {
    /// Returns whether a worker was not reached, or cannot be.
    pub fn is_about_worker(&self) -> bool {
        matches!(self, Self::Unsupported(_) | Self::WorkerUnreachable(_))
    }

    /// Creates the error that there is no `what` of that id.
    pub fn not_found(what: &'static str, id: impl ToString) -> Self {
        Self::NotFound {
            what,
            id: id.to_string(),
        }
    }
}

impl From<QueueStoreError> for ServiceError {
    fn from(error: QueueStoreError) -> Self {
        match error {
            QueueStoreError::UnknownCodebase(name) => Self::not_found("codebase", name),
            QueueStoreError::AlreadySettled => Self::Conflict(error.to_string()),
            QueueStoreError::Fault(fault) => fault.into(),
        }
    }
}

impl From<ActiveRunStoreError> for ServiceError {
    fn from(error: ActiveRunStoreError) -> Self {
        match error {
            ActiveRunStoreError::ClaimLost(id) => Self::not_found("active run", id),
            ActiveRunStoreError::Fault(fault) => fault.into(),
        }
    }
}

impl From<RunStoreError> for ServiceError {
    fn from(error: RunStoreError) -> Self {
        match error {
            RunStoreError::ClaimLost(id) => Self::not_found("active run", id),
            RunStoreError::UnknownWorker(name) => Self::not_found("worker", name),
            RunStoreError::Refused(rule) => Invalid::new("run", rule).into(),
            RunStoreError::Fault(fault) => fault.into(),
        }
    }
}

impl From<CatalogError> for ServiceError {
    fn from(error: CatalogError) -> Self {
        match error {
            CatalogError::DuplicateLocation { .. } => {
                Invalid::new("branch_url", error.to_string()).into()
            }
            CatalogError::UnknownRun(id) => {
                Invalid::new("followup_for", format!("no run {id}")).into()
            }
            CatalogError::UnknownCodebase(name) => Self::not_found("codebase", name),
            CatalogError::Fault(fault) => fault.into(),
        }
    }
}

impl From<CredentialsError> for ServiceError {
    fn from(error: CredentialsError) -> Self {
        match error {
            CredentialsError::Exists(_) => Self::Conflict(error.to_string()),
            CredentialsError::Fault(fault) => fault.into(),
        }
    }
}

impl From<BackchannelError> for ServiceError {
    fn from(error: BackchannelError) -> Self {
        match error {
            BackchannelError::Unsupported(_) => Self::Unsupported(error.to_string()),
            BackchannelError::NoSuchLog => Self::not_found("log", "of this name"),
            BackchannelError::Unreachable(_) => Self::WorkerUnreachable(error.to_string()),
        }
    }
}
