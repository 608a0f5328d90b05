//! Which failures are the worker's fault, and when a worker is quarantined because of them.

use super::{retry::matches_code, run::Run};

/// When a worker is quarantined for its failures.
///
/// ```
/// use janitor_runner::domain::quarantine::QuarantinePolicy;
///
/// let policy = QuarantinePolicy { codes: vec!["worker-*".into()], quarantine_after: 3 };
/// assert!(!policy.quarantines(2));
/// assert!(policy.quarantines(3));
/// // Zero disables quarantine.
/// assert!(!QuarantinePolicy::default().quarantines(1_000));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuarantinePolicy {
    /// The result codes of failures that are the worker's fault; `*` at the end matches any rest.
    pub codes: Vec<String>,
    /// The number of such failures in a row after which a worker is quarantined; zero means never.
    pub quarantine_after: u32,
}

impl QuarantinePolicy {
    /// Returns whether the failure of a run is the worker's fault; `None` for a run without a
    /// worker.
    pub fn worker_at_fault(&self, run: &Run) -> Option<bool> {
        run.worker.as_ref().map(|_| {
            run.code.is_failure()
                && self
                    .codes
                    .iter()
                    .any(|pattern| matches_code(pattern, &run.code))
        })
    }

    /// Returns whether a worker with that many failures in a row is quarantined.
    pub fn quarantines(&self, failures: u32) -> bool {
        self.quarantine_after > 0 && failures >= self.quarantine_after
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        active_run::{ActiveRun, Claimant},
        finish::{end, tests::item},
        name::RunId,
        time,
    };

    #[test]
    fn only_listed_codes_are_the_workers_fault() {
        let policy = QuarantinePolicy {
            codes: vec!["worker-*".into()],
            quarantine_after: 3,
        };
        let now = time::parse("t", "2026-01-01T00:00:00").unwrap();
        let claimant = Claimant {
            worker: Some("w".into()),
            ..Claimant::default()
        };
        let run = |code| {
            end(
                &ActiveRun::new(RunId::new("r"), "t".into(), item(), claimant.clone(), now),
                code,
                String::new(),
                true,
                now,
            )
        };
        assert_eq!(policy.worker_at_fault(&run("worker-failure")), Some(true));
        assert_eq!(policy.worker_at_fault(&run("build-failed")), Some(false));
        let without_worker = Run {
            worker: None,
            ..run("worker-failure")
        };
        assert_eq!(policy.worker_at_fault(&without_worker), None);
    }
}
