//! The machine's clock and source of randomness.

use crate::{
    domain::time::Time,
    ports::{Clock, Ids},
};

/// The real clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that reads the clock"
    )]
    fn now(&self) -> Time {
        chrono::Utc::now()
    }
}

/// Random ids.
#[derive(Debug, Clone, Copy, Default)]
pub struct RandomIds;

impl Ids for RandomIds {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place that makes ids"
    )]
    fn fresh(&self) -> String {
        uuid::Uuid::new_v4().to_string()
    }
}
