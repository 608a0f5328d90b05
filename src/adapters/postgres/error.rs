//! How failures of the database become those of the ports.

use crate::ports::Fault;
use sqlx::error::DatabaseError;

/// Why a transaction ends without effect.
pub(super) enum Abort<E> {
    /// The database refused a statement.
    Sql(sqlx::Error),
    /// The port's own case.
    Refused(E),
    /// Somebody else changed the same rows meanwhile; another attempt may succeed.
    Contended,
}

impl<E> Abort<E> {
    /// Converts to the abort of another port's transaction.
    pub(super) fn into_other<F>(self, refused: impl FnOnce(E) -> F) -> Abort<F> {
        match self {
            Self::Sql(error) => Abort::Sql(error),
            Self::Refused(why) => Abort::Refused(refused(why)),
            Self::Contended => Abort::Contended,
        }
    }
}

impl<E> From<sqlx::Error> for Abort<E> {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// Whether a repeat may succeed.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => {
            // The classes are: connection exception (08), insufficient resources (53), operator
            // intervention such as a shutdown or a statement timeout (57), system error (58) and
            // transaction rollback (40). The codes are lock_not_available, and
            // idle_in_transaction_session_timeout.
            let code = error.code().unwrap_or_default();
            ["08", "53", "57", "58", "40"]
                .iter()
                .any(|class| code.starts_with(class))
                || code == "55P03"
                || code == "25P03"
        }
        _ => false,
    }
}

/// Converts a failure of the database to that of a port.
pub(super) fn fault(action: &'static str, error: sqlx::Error) -> Fault {
    if is_transient(&error) {
        Fault::unavailable(action, error)
    } else {
        Fault::backend(action, error)
    }
}

/// Returns the server's own error, where a fault is one.
pub(super) fn database_error(fault: &Fault) -> Option<&dyn DatabaseError> {
    std::error::Error::source(fault)?
        .downcast_ref::<sqlx::Error>()?
        .as_database_error()
}

/// Whether a transaction lost against another by a deadlock or serialization failure: nothing was
/// changed, and another attempt may succeed.
pub(super) fn is_conflict(fault: &Fault) -> bool {
    let code = database_error(fault).and_then(DatabaseError::code);
    matches!(code.as_deref(), Some("40001" | "40P01"))
}

/// Returns the same failure for another caller who waited for the same statement.
pub(super) fn duplicate(fault: &Fault) -> Fault {
    let why =
        std::error::Error::source(fault).map_or_else(|| fault.to_string(), ToString::to_string);
    match fault {
        Fault::Unavailable { action, .. } => Fault::unavailable(action, why),
        Fault::Backend { action, .. } => Fault::backend(action, why),
        Fault::Refused { action, .. } => Fault::refused(action, why),
    }
}
