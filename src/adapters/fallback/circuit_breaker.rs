//! Keeps requests from waiting for a store that failed a moment ago.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// How long a store is skipped after a failure.
const COOLDOWN: Duration = Duration::from_secs(5);

/// Until when a store is skipped.
#[derive(Debug, Default)]
pub(super) struct CircuitBreaker(Mutex<Option<Instant>>);

impl CircuitBreaker {
    /// Returns whether the store is to be skipped, since it failed a moment ago.
    pub(super) fn is_open(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
    }

    /// Skips the store for a while, since it failed.
    pub(super) fn open(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + COOLDOWN);
    }

    /// Uses the store again, since it worked.
    pub(super) fn close(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn failed_store_is_skipped_until_the_cooldown_ends() {
        let breaker = CircuitBreaker::default();
        assert!(!breaker.is_open(), "a new breaker skips nothing");
        breaker.open();
        assert!(breaker.is_open());
        tokio::time::advance(COOLDOWN).await;
        assert!(!breaker.is_open());
    }

    #[tokio::test(start_paused = true)]
    async fn success_ends_the_cooldown() {
        let breaker = CircuitBreaker::default();
        breaker.open();
        breaker.close();
        assert!(!breaker.is_open());
    }
}
