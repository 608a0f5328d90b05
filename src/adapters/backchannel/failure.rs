//! What failed requests to workers mean for runs.

use crate::{
    adapters::support::guarded_http::GuardedHttpError, domain::watch::Ping, ports::BackchannelError,
};
use reqwest::StatusCode;

/// Returns what a failed ping says about the run.
///
/// A refused connection means that the worker has ended, or that it cannot be reached from here. A
/// slow or broken one may recover, so it counts as one failure. An address that may not be requested says nothing about the run.
pub(super) fn ping_of_failure(error: GuardedHttpError) -> Ping {
    match error {
        GuardedHttpError::Refused(_) => Ping::Refused(error.to_string()),
        GuardedHttpError::Forbidden(_) => Ping::Impossible,
        GuardedHttpError::Timeout(_) | GuardedHttpError::Failed(_) => {
            Ping::Failed(error.to_string())
        }
    }
}

/// Converts the error of a request.
pub(super) fn unreachable(error: GuardedHttpError) -> BackchannelError {
    BackchannelError::Unreachable(error.to_string())
}

/// Returns the error for a response with an unexpected status.
pub(super) fn unexpected_status(status: StatusCode) -> BackchannelError {
    BackchannelError::Unreachable(format!("it answers {status}"))
}
