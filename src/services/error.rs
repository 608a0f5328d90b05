//! Why a use case could not be carried out. `adapters/http/error.rs` maps each to a status.

use crate::{
    domain::{Invalid, name::RunId, time::Time},
    ports::{
        ActiveRunStoreError, BackchannelError, CatalogError, CredentialsError, Fault,
        QueueStoreError, RunStoreError,
    },
};

/// Why a use case could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// There is no such thing.
    #[error("no such {what}: {id}")]
    #[expect(missing_docs)]
    NotFound { what: &'static str, id: String },
    /// The input breaks a rule.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Neither request, candidate, campaign nor run has a command.
    #[error("no command specified")]
    NoCommand,
    /// Nothing can be handed out now.
    #[error("queue empty")]
    QueueEmpty,
    /// What could be handed out lies on hosts that want to be left alone until then.
    #[error("every remaining host is rate limited until {0}")]
    RateLimited(Time),
    /// Somebody else's.
    #[error("run {0} is held by another worker")]
    NotYours(RunId),
    /// A run that is not active any more.
    #[error("run {run} is not active any more")]
    #[expect(missing_docs)]
    Gone {
        run: RunId,
        /// Its result is of no use: it has one, or somebody else is at it.
        stop: bool,
    },
    /// A bit of a log that begins after its end, which is there.
    #[error("the log has {0} bytes")]
    Gap(u64),
    /// More than is taken.
    #[error("{what} is larger than {limit} bytes")]
    #[expect(missing_docs)]
    TooLarge { what: &'static str, limit: u64 },
    /// This process is ending.
    #[error("the runner is stopping")]
    Stopping,
    /// It clashes with what is there.
    #[error("{0}")]
    Conflict(String),
    /// It cannot be done for this run.
    #[error("{0}")]
    Unsupported(String),
    /// The worker did not answer as it should.
    #[error("{0}")]
    WorkerUnreachable(String),
    /// A store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl ServiceError {
    /// Says that there is no `what` of that id.
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
