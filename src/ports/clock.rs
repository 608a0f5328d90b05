//! Time, ids and randomness, so that tests can set them.

use crate::domain::time::Time;

/// The time.
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

/// A source of randomness for decisions that need no secret, such as jitter.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
pub trait Randomness: Send + Sync {
    /// Returns a number from 0 up to but not including 1, evenly spread.
    fn fraction(&self) -> f64;
}
