//! How much is asked of forges at a time.

use std::time::Duration;

/// How much is probed at a time, and for how long an answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProbeLimits {
    /// Probes of one host at a time.
    pub of_host: usize,
    /// Probes at a time.
    pub in_all: usize,
    /// How long an answer is remembered.
    pub memory: Duration,
    /// How long a probe may take, with waiting for its turn.
    pub timeout: Duration,
}

impl Default for ProbeLimits {
    fn default() -> Self {
        Self {
            of_host: 8,
            in_all: 64,
            memory: Duration::from_secs(30),
            timeout: Duration::from_secs(10),
        }
    }
}
