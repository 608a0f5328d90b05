//! Sources of time, ids and randomness, which tests replace.

use crate::domain::time::Time;

/// The clock.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
pub trait Clock: Send + Sync {
    /// Returns the current time, in UTC.
    fn now(&self) -> Time;
}

/// Generates ids that are unique and cannot be guessed.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
pub trait Ids: Send + Sync {
    /// Returns a new UUID, version 4.
    fn fresh(&self) -> String;
}

/// A source of randomness for decisions that need no secret, such as jitter.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
pub trait Randomness: Send + Sync {
    /// Returns a number from 0 up to but not including 1, evenly spread.
    fn fraction(&self) -> f64;
}
