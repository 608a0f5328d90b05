//! Time and chance, so that tests can set both.

use crate::domain::time::Time;

/// Tells the time.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
pub trait Clock: Send + Sync {
    /// Now, in UTC.
    fn now(&self) -> Time;
}

/// Makes ids that nobody else has, and that nobody can guess.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
pub trait Ids: Send + Sync {
    /// A fresh UUID, version 4.
    fn fresh(&self) -> String;
}
