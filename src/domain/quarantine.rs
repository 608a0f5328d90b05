//! Which failures are the worker's, and when a worker is given no more work because of them.

use super::{retry::matches_code, run::Run};

/// When failures are held against the worker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuarantinePolicy {
    /// Result codes of such failures; `*` at the end stands for anything.
    pub codes: Vec<String>,
    /// Such failures in a row after which a worker gets no more work; zero: never.
    pub quarantine_after: u32,
}

impl QuarantinePolicy {
    /// Whether a run's failure is the worker's; none for a run without a worker.
    pub fn blames(&self, run: &Run) -> Option<bool> {
        run.worker.as_ref().map(|_| {
            run.code.is_failure()
                && self
                    .codes
                    .iter()
                    .any(|pattern| matches_code(pattern, &run.code))
        })
    }

    /// Whether a worker with so many failures in a row is to get no more work.
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
    fn only_the_listed_codes_are_the_workers() {
        let rules = QuarantinePolicy {
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
        assert_eq!(
            (
                rules.blames(&run("worker-failure")),
                rules.blames(&run("build-failed"))
            ),
            (Some(true), Some(false))
        );
        assert_eq!(
            rules.blames(&Run {
                worker: None,
                ..run("worker-failure")
            }),
            None
        );
        assert!(
            rules.quarantines(3)
                && !rules.quarantines(2)
                && !QuarantinePolicy::default().quarantines(99)
        );
    }
}
