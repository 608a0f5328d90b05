//! What becomes of an active run whose worker is silent.

use super::{active_run::ActiveRun, time::Time};
use chrono::TimeDelta;

/// What a ping of the worker said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ping {
    /// The worker is on this run.
    Alive,
    /// There is no way to ask.
    Impossible,
    /// The run is certainly lost; why.
    Fatal(String),
    /// No answer, or one that tells nothing; why.
    Failed(String),
}

/// What to do about an active run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Note the sign of life.
    Alive,
    /// Nothing yet.
    Wait,
    /// End the run, as a transient failure.
    End {
        /// Its result code.
        code: &'static str,
        /// Why.
        description: String,
    },
}

/// A worker that is not reachable and was silent this long is gone.
const UNREACHABLE_FOR: TimeDelta = TimeDelta::days(1);

/// Whether the worker of a run should be pinged: its last sign of life is older than a third of the timeout.
pub fn is_due(run: &ActiveRun, now: Time, timeout: TimeDelta) -> bool {
    now - run.keepalive > timeout / 3
}

/// Judges a run by the answer to a ping.
pub fn judge(run: &ActiveRun, ping: Ping, now: Time, timeout: TimeDelta) -> Verdict {
    let silent = now - run.keepalive;
    match ping {
        Ping::Alive => Verdict::Alive,
        Ping::Impossible if silent > UNREACHABLE_FOR => {
            Verdict::End { code: "run-disappeared", description: "no sign of life for a day, and no way to ask the worker".to_owned() }
        }
        Ping::Fatal(why) => Verdict::End { code: "run-disappeared", description: why },
        Ping::Failed(why) if silent > timeout => {
            let minutes = silent.num_minutes();
            Verdict::End { code: "worker-timeout", description: format!("no sign of life for {minutes} minutes: {why}") }
        }
        Ping::Impossible | Ping::Failed(_) => Verdict::Wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{active_run::Claimant, finish::tests::item, name::RunId, time};

    #[test]
    fn every_row_of_the_table() {
        let start = time::parse("t", "2026-01-01T00:00:00").unwrap();
        let run = ActiveRun::new(RunId::new("r"), "t".into(), item(), Claimant::default(), start);
        let timeout = TimeDelta::minutes(60);
        let after = |minutes, ping| judge(&run, ping, start + TimeDelta::minutes(minutes), timeout);
        let code = |verdict| match verdict {
            Verdict::End { code, .. } => code,
            Verdict::Alive => "alive",
            Verdict::Wait => "wait",
        };
        let failed = || Ping::Failed("refused".into());
        assert!(!is_due(&run, start + TimeDelta::minutes(20), timeout) && is_due(&run, start + TimeDelta::minutes(21), timeout));
        assert_eq!(code(after(5000, Ping::Alive)), "alive");
        assert_eq!(code(after(24 * 60, Ping::Impossible)), "wait");
        assert_eq!(code(after(24 * 60 + 1, Ping::Impossible)), "run-disappeared");
        assert_eq!(code(after(21, Ping::Fatal("gone".into()))), "run-disappeared");
        assert_eq!(code(after(60, failed())), "wait");
        assert_eq!(code(after(61, failed())), "worker-timeout");
    }
}
