//! What becomes of an active run whose worker is silent.

use super::{
    active_run::ActiveRun,
    time::{Time, seconds_between},
};
use chrono::TimeDelta;

/// The code of a run that certainly is lost.
pub const RUN_DISAPPEARED: &str = "run-disappeared";
/// The code of a run whose worker gave no sign of life for too long.
pub const WORKER_TIMEOUT: &str = "worker-timeout";

/// What a ping of the worker said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ping {
    /// The worker is on this run.
    Alive,
    /// There is no way to ask.
    Impossible,
    /// The run is lost: nobody is there, or the worker knows nothing of it; why.
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
    /// Note one more ping that said the run is lost.
    Suspect,
    /// End the run, as a transient failure.
    End {
        /// Its result code.
        code: &'static str,
        /// Why.
        description: String,
    },
}

/// How active runs are watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchRules {
    /// A worker that is silent this long is pinged, and again each time that it has passed.
    pub ping_after: TimeDelta,
    /// After a ping that said the run is lost, the next one comes after this.
    pub suspect_after: TimeDelta,
    /// A worker that cannot be asked, or answers nothing, is gone after this.
    pub run_timeout: TimeDelta,
    /// How long a lease lasts.
    pub lease: TimeDelta,
}

/// A worker that is not reachable and was silent this long is gone.
const UNREACHABLE_FOR: TimeDelta = TimeDelta::days(1);
/// Pings in a row that say that the run is lost, until it is believed.
const FATAL_PINGS: u32 = 3;

impl WatchRules {
    /// Whether the worker of a run should be pinged, its last ping having been then. One that takes part in leases says itself that it is there.
    pub fn is_due(&self, run: &ActiveRun, last_ping: Option<Time>, now: Time) -> bool {
        let pause = if run.failures > 0 {
            self.suspect_after
        } else {
            self.ping_after
        };
        run.lease_until.is_none()
            && now - last_ping.map_or(run.keepalive, |ping| ping.max(run.keepalive)) >= pause
    }

    /// Ends a run whose lease ran out; none while it did not.
    pub fn lease_ran_out(&self, run: &ActiveRun, now: Time) -> Option<Verdict> {
        run.lease_until.filter(|until| *until < now).map(|until| {
            let silent = seconds_between(run.keepalive, now);
            let late = seconds_between(until, now);
            let description = format!("the lease ran out {late:.0} s ago; the worker's last sign of life was {silent:.0} s ago");
            Verdict::End { code: WORKER_TIMEOUT, description }
        })
    }

    /// Judges a run by the answer to a ping.
    pub fn judge(&self, run: &ActiveRun, ping: Ping, now: Time) -> Verdict {
        let silent = now - run.keepalive;
        match ping {
            Ping::Alive => Verdict::Alive,
            Ping::Impossible if silent > UNREACHABLE_FOR => Verdict::End {
                code: RUN_DISAPPEARED,
                description: "no sign of life for a day, and no way to ask the worker".to_owned(),
            },
            Ping::Fatal(why) if run.failures + 1 >= FATAL_PINGS || silent > self.run_timeout => {
                Verdict::End {
                    code: RUN_DISAPPEARED,
                    description: format!("asked {} times: {why}", run.failures + 1),
                }
            }
            Ping::Fatal(_) => Verdict::Suspect,
            Ping::Failed(why) if silent > self.run_timeout => {
                let minutes = silent.num_minutes();
                Verdict::End {
                    code: WORKER_TIMEOUT,
                    description: format!("no sign of life for {minutes} minutes: {why}"),
                }
            }
            Ping::Impossible | Ping::Failed(_) => Verdict::Wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{active_run::Claimant, finish::tests::item, name::RunId, time};

    fn rules() -> WatchRules {
        let minutes = TimeDelta::minutes;
        WatchRules {
            ping_after: minutes(1),
            suspect_after: TimeDelta::seconds(30),
            run_timeout: minutes(60),
            lease: minutes(2),
        }
    }

    fn run() -> ActiveRun {
        let start = time::parse("t", "2026-01-01T00:00:00").unwrap();
        ActiveRun::new(
            RunId::new("r"),
            "t".into(),
            item(),
            Claimant::default(),
            start,
        )
    }

    #[test]
    fn every_row_of_the_table() {
        let after = |failures, minutes, ping| {
            let run = ActiveRun { failures, ..run() };
            rules().judge(&run, ping, run.keepalive + TimeDelta::minutes(minutes))
        };
        let code = |verdict| match verdict {
            Verdict::End { code, .. } => code,
            Verdict::Alive => "alive",
            Verdict::Wait => "wait",
            Verdict::Suspect => "suspect",
        };
        let (failed, fatal) = (
            || Ping::Failed("slow".into()),
            || Ping::Fatal("gone".into()),
        );
        assert_eq!(code(after(0, 5000, Ping::Alive)), "alive");
        assert_eq!(code(after(0, 24 * 60, Ping::Impossible)), "wait");
        assert_eq!(
            code(after(0, 24 * 60 + 1, Ping::Impossible)),
            RUN_DISAPPEARED
        );
        assert_eq!(code(after(0, 2, fatal())), "suspect");
        assert_eq!(code(after(1, 2, fatal())), "suspect");
        assert_eq!(code(after(2, 2, fatal())), RUN_DISAPPEARED);
        assert_eq!(code(after(0, 61, fatal())), RUN_DISAPPEARED);
        assert_eq!(code(after(0, 60, failed())), "wait");
        assert_eq!(code(after(9, 61, failed())), WORKER_TIMEOUT);
    }

    #[test]
    fn silent_workers_are_pinged_each_minute_and_suspects_sooner() {
        let at = |seconds| run().keepalive + TimeDelta::seconds(seconds);
        let suspect = ActiveRun {
            failures: 1,
            ..run()
        };
        assert!(!rules().is_due(&run(), None, at(59)) && rules().is_due(&run(), None, at(60)));
        assert!(
            !rules().is_due(&run(), Some(at(60)), at(119))
                && rules().is_due(&run(), Some(at(60)), at(120))
        );
        assert!(
            !rules().is_due(&suspect, Some(at(60)), at(89))
                && rules().is_due(&suspect, Some(at(60)), at(90))
        );
        let leased = ActiveRun {
            lease_until: Some(at(120)),
            ..run()
        };
        assert!(!rules().is_due(&leased, None, at(10_000)));
        assert_eq!(rules().lease_ran_out(&leased, at(120)), None);
        assert!(matches!(
            rules().lease_ran_out(&leased, at(121)),
            Some(Verdict::End {
                code: WORKER_TIMEOUT,
                ..
            })
        ));
        assert_eq!(rules().lease_ran_out(&run(), at(100_000)), None);
    }

    #[test]
    fn a_sign_of_life_renews_a_lease_and_never_shortens_it() {
        let mut leased = ActiveRun {
            lease_until: Some(run().keepalive + TimeDelta::minutes(2)),
            failures: 2,
            ..run()
        };
        let later = leased.keepalive + TimeDelta::seconds(30);
        leased.renew(later, TimeDelta::minutes(2));
        assert_eq!(
            (leased.keepalive, leased.lease_until, leased.failures),
            (later, Some(later + TimeDelta::minutes(2)), 0)
        );
        leased.renew(later - TimeDelta::seconds(9), TimeDelta::minutes(2));
        assert_eq!(leased.keepalive, later);
        let mut free = run();
        free.renew(later, TimeDelta::minutes(2));
        assert_eq!(free.lease_until, None);
    }
}
