//! Watching: when the worker of an active run is pinged, and when a run without a worker is ended.

use super::{
    active_run::ActiveRun,
    termination::{Abandonment, RUN_DISAPPEARED, WORKER_TIMEOUT},
    time::{Time, seconds_between},
};
use chrono::TimeDelta;

/// The outcome of a ping.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ping {
    /// The worker is working on this run.
    Alive,
    /// The worker has no backchannel to ping.
    Impossible,
    /// The run is lost: the worker does not know it. Carries the reason.
    Fatal(String),
    /// Nothing listens at the address. Carries the reason.
    Refused(String),
    /// The ping had no response, or one that proves nothing. Carries the reason.
    Failed(String),
}

/// What to do with an active run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Renew the lease.
    Alive,
    /// Do nothing yet.
    Wait,
    /// Count one more ping that said the run is lost.
    Suspect,
    /// End the run, as a transient failure.
    End(Abandonment),
}

/// The rules by which active runs are watched.
///
/// ```
/// use chrono::TimeDelta;
/// use janitor_runner::domain::{
///     active_run::{ActiveRun, Claimant},
///     name::{CampaignName, CodebaseName, RunId},
///     queue::{Bucket, QueueItem, QueueKey},
///     time,
///     watch::{Ping, Verdict, WatchRules},
/// };
///
/// let rules = WatchRules {
///     ping_after: TimeDelta::minutes(1),
///     suspect_after: TimeDelta::seconds(30),
///     run_timeout: TimeDelta::hours(1),
///     lease: TimeDelta::minutes(2),
///     max_duration: None,
/// };
/// # let item = QueueItem {
/// #     id: 7,
/// #     key: QueueKey {
/// #         codebase: CodebaseName::new("hello")?,
/// #         campaign: CampaignName::new("lintian-fixes")?,
/// #         change_set: None,
/// #     },
/// #     bucket: Bucket::Default,
/// #     priority: 0,
/// #     command: "lintian-brush".into(),
/// #     context: None,
/// #     estimated_duration: None,
/// #     refresh: false,
/// #     requester: None,
/// # };
/// let start = time::parse("start", "2026-11-23T10:00:00")?;
/// let run = ActiveRun::new(RunId::new("r"), "token".into(), item, Claimant::default(), start);
///
/// assert!(!rules.is_due(&run, None, start + TimeDelta::seconds(59)));
/// assert!(rules.is_due(&run, None, start + TimeDelta::seconds(60)));
/// let silent = Ping::Failed("timed out".into());
/// assert_eq!(rules.judge(&run, silent, start + TimeDelta::minutes(2)), Verdict::Wait);
/// # Ok::<(), janitor_runner::domain::Invalid>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchRules {
    /// How long a worker is silent before it is pinged, and the interval of the pings after that.
    pub ping_after: TimeDelta,
    /// The interval of the pings after one that said the run is lost.
    pub suspect_after: TimeDelta,
    /// How long a worker is silent, while pings fail, before its run is ended.
    pub run_timeout: TimeDelta,
    /// The duration of a lease.
    pub lease: TimeDelta,
    /// How long a run may take in all, however alive its worker is; `None` means for ever.
    /// Campaigns may have a limit of their own.
    pub max_duration: Option<TimeDelta>,
}

/// How long a worker without a backchannel is silent before its run is ended.
const UNREACHABLE_TIMEOUT: TimeDelta = TimeDelta::days(1);
/// The number of pings in a row saying that the run is lost after which it is ended. A single one
/// may come from a proxy, or from a worker that just restarts.
const MAX_FATAL_PINGS: u32 = 3;

impl WatchRules {
    /// Returns whether the worker of a run is due to be pinged, given the time of its last ping. A
    /// worker with a lease is never pinged, because it sends heartbeats itself.
    pub fn is_due(&self, run: &ActiveRun, last_ping: Option<Time>, now: Time) -> bool {
        let interval = if run.failures > 0 {
            self.suspect_after
        } else {
            self.ping_after
        };
        run.lease_until.is_none()
            && now - last_ping.map_or(run.keepalive, |ping| ping.max(run.keepalive)) >= interval
    }

    /// Returns [`Verdict::End`] when the lease of a run has expired, otherwise `None`.
    pub fn lease_expired(&self, run: &ActiveRun, now: Time) -> Option<Verdict> {
        run.lease_until.filter(|until| *until < now).map(|until| {
            let silent = seconds_between(run.keepalive, now);
            let late = seconds_between(until, now);
            let description = format!(
                "the lease ran out {late:.0} s ago; \
                 the worker's last heartbeat was {silent:.0} s ago"
            );
            Verdict::End(Abandonment::new(run, WORKER_TIMEOUT, description, now))
        })
    }

    /// Returns how a run ends that has taken longer than it may. `of_campaign` is the limit of its
    /// campaign, if that has one of its own; zero means no limit.
    pub fn overdue(
        &self,
        run: &ActiveRun,
        of_campaign: Option<TimeDelta>,
        now: Time,
    ) -> Option<Abandonment> {
        let limit = of_campaign
            .or(self.max_duration)
            .filter(|limit| *limit > TimeDelta::zero())?;
        (now - run.start_time > limit).then(|| Abandonment::overdue(run, limit))
    }

    /// Returns the verdict on a run after a ping.
    pub fn judge(&self, run: &ActiveRun, ping: Ping, now: Time) -> Verdict {
        let silent = now - run.keepalive;
        // A worker behind address translation or a firewall refuses every connection while it
        // works. Only where a worker has responded before does a refusal mean that it has ended.
        let ping = match ping {
            Ping::Refused(why) if run.claimant.has_responded => Ping::Fatal(why),
            Ping::Refused(why) => Ping::Failed(why),
            ping => ping,
        };
        let end = |code, why| Verdict::End(Abandonment::new(run, code, why, now));
        match ping {
            Ping::Alive => Verdict::Alive,
            Ping::Impossible if silent > UNREACHABLE_TIMEOUT => end(
                RUN_DISAPPEARED,
                "no heartbeat for a day, and no way to ask the worker".to_owned(),
            ),
            Ping::Fatal(why)
                if run.failures + 1 >= MAX_FATAL_PINGS || silent > self.run_timeout =>
            {
                end(
                    RUN_DISAPPEARED,
                    format!("asked {} times: {why}", run.failures + 1),
                )
            }
            Ping::Fatal(_) => Verdict::Suspect,
            Ping::Failed(why) if silent > self.run_timeout => {
                let minutes = silent.num_minutes();
                end(
                    WORKER_TIMEOUT,
                    format!("no heartbeat for {minutes} minutes: {why}"),
                )
            }
            Ping::Impossible | Ping::Failed(_) | Ping::Refused(_) => Verdict::Wait,
        }
    }
}

impl Ping {
    /// Returns whether a worker has responded: that it works on the run, or that it does not.
    pub fn is_response(&self) -> bool {
        matches!(self, Self::Alive | Self::Fatal(_))
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
            max_duration: Some(minutes(48 * 60)),
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
    fn verdict_depends_on_ping_failures_and_silence() {
        let after = |failures, minutes, ping| {
            let run = ActiveRun { failures, ..run() };
            rules().judge(&run, ping, run.keepalive + TimeDelta::minutes(minutes))
        };
        let code = |verdict| match verdict {
            Verdict::End(Abandonment { code, .. }) => code,
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
    fn refusal_counts_only_after_a_response() {
        let after = |has_responded, failures, minutes| {
            let mut run = ActiveRun { failures, ..run() };
            run.claimant.has_responded = has_responded;
            let now = run.keepalive + TimeDelta::minutes(minutes);
            rules().judge(&run, Ping::Refused("nobody listens".into()), now)
        };
        assert_eq!(after(false, 2, 2), Verdict::Wait);
        assert_eq!(after(true, 0, 2), Verdict::Suspect);
        assert!(matches!(
            after(true, 2, 2),
            Verdict::End(Abandonment {
                code: RUN_DISAPPEARED,
                ..
            })
        ));
        assert!(matches!(
            after(false, 0, 61),
            Verdict::End(Abandonment {
                code: WORKER_TIMEOUT,
                ..
            })
        ));
    }

    #[test]
    fn run_that_takes_too_long_is_overdue_whatever_its_heartbeats_say() {
        let hours = TimeDelta::hours;
        let at = |hours_later| {
            let now = run().start_time + hours(hours_later);
            let run = ActiveRun {
                keepalive: now,
                ..run()
            };
            (run, now)
        };
        let is_overdue = |rules: WatchRules, of_campaign, hours_later| {
            let (run, now) = at(hours_later);
            rules.overdue(&run, of_campaign, now).is_some()
        };
        let unlimited = WatchRules {
            max_duration: None,
            ..rules()
        };
        assert!(!is_overdue(rules(), None, 48));
        assert!(is_overdue(rules(), None, 49));
        assert!(is_overdue(rules(), Some(hours(2)), 3));
        assert!(!is_overdue(rules(), Some(hours(72)), 49));
        assert!(!is_overdue(rules(), Some(TimeDelta::zero()), 49));
        assert!(!is_overdue(unlimited, None, 1000));
        assert!(is_overdue(unlimited, Some(hours(2)), 3));
    }

    #[test]
    fn silent_workers_are_pinged_each_minute_and_suspects_more_often() {
        let at = |seconds| run().keepalive + TimeDelta::seconds(seconds);
        let suspect = ActiveRun {
            failures: 1,
            ..run()
        };
        assert!(!rules().is_due(&run(), None, at(59)));
        assert!(rules().is_due(&run(), None, at(60)));
        assert!(!rules().is_due(&run(), Some(at(60)), at(119)));
        assert!(rules().is_due(&run(), Some(at(60)), at(120)));
        assert!(!rules().is_due(&suspect, Some(at(60)), at(89)));
        assert!(rules().is_due(&suspect, Some(at(60)), at(90)));
    }

    #[test]
    fn run_with_a_lease_is_never_pinged_and_ends_when_it_expires() {
        let at = |seconds| run().keepalive + TimeDelta::seconds(seconds);
        let leased = ActiveRun {
            lease_until: Some(at(120)),
            ..run()
        };
        assert!(!rules().is_due(&leased, None, at(10_000)));
        assert_eq!(rules().lease_expired(&leased, at(120)), None);
        assert!(matches!(
            rules().lease_expired(&leased, at(121)),
            Some(Verdict::End(Abandonment {
                code: WORKER_TIMEOUT,
                ..
            }))
        ));
        assert_eq!(rules().lease_expired(&run(), at(100_000)), None);
    }

    #[test]
    fn heartbeat_renews_a_lease_and_never_shortens_it() {
        let mut leased = ActiveRun {
            lease_until: Some(run().keepalive + TimeDelta::minutes(2)),
            failures: 2,
            ..run()
        };
        let later = leased.keepalive + TimeDelta::seconds(30);
        leased.renew(later, TimeDelta::minutes(2));
        assert_eq!(leased.keepalive, later);
        assert_eq!(leased.lease_until, Some(later + TimeDelta::minutes(2)));
        assert_eq!(leased.failures, 0);
        leased.renew(later - TimeDelta::seconds(9), TimeDelta::minutes(2));
        assert_eq!(leased.keepalive, later);
        let mut free = run();
        free.renew(later, TimeDelta::minutes(2));
        assert_eq!(free.lease_until, None);
    }
}
