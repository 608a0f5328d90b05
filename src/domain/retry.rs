//! Retries: when the queue item of a failed run is snoozed, parked or completed.
//!
//! A failure that a repeat may cure returns the item to its position in the queue, after a delay
//! that grows each time. When the attempts are used up the item is parked, so that nothing is
//! retried for ever and nothing is lost.

use super::{
    queue::Interval,
    run::{ResultCode, Run},
    time::Time,
};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What happens to an item when its attempts are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Afterwards {
    /// The item is parked until somebody unparks it.
    Park,
    /// The item is completed, and its candidate is scheduled by its score.
    Reschedule,
}

/// A rule for failures of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryRule {
    /// The name that attempts are counted under, and that the reason of a parked item begins with.
    pub name: String,
    /// The result codes that it applies to; `*` at the end matches any rest. Empty means all.
    pub codes: Vec<String>,
    /// The first parts of the failure stage that it applies to; `None` means any stage.
    pub stage: Option<String>,
    /// Whether the failure is reported as transient; `None` means either.
    pub transient: Option<bool>,
    /// The number of runs in a row that may fail like this.
    pub attempts: u32,
    /// The delay after the first failure; zero means that the item is never snoozed.
    pub delay: TimeDelta,
    /// The factor that the delay grows by with each failure.
    pub factor: f64,
    /// The longest delay, before jitter.
    pub max_delay: TimeDelta,
    /// The share of the delay that is added or subtracted at random, from 0 to 1.
    pub jitter: f64,
    /// What happens after the last attempt.
    pub afterwards: Afterwards,
}

/// The number of failed attempts of an item in a row, by the name of the rule that they matched.
pub type Attempts = BTreeMap<String, u32>;

/// Why and since when an item is parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parked {
    /// The reason, for operators.
    pub reason: String,
    /// The time at which it was parked.
    #[serde(with = "super::time::as_iso")]
    pub since: Time,
}

/// The retry state of an item. That of most items is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ItemState {
    /// The failed attempts so far; stored as `tries`.
    #[serde(rename = "tries")]
    pub attempts: Attempts,
    /// The end of the snooze: the item is not assigned before.
    #[serde(with = "super::time::as_iso::option")]
    pub not_before: Option<Time>,
    /// Set while the item is parked.
    pub parked: Option<Parked>,
    /// The number of runs in a row that ended alike, when that is why the item is snoozed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<u32>,
}

impl ItemState {
    /// Returns the state of a new item that waits for an interval to end.
    pub fn in_interval(interval: Option<Interval>) -> Self {
        Self {
            not_before: interval.map(|interval| interval.until),
            repeats: interval.map(|interval| interval.repeats),
            ..Self::default()
        }
    }

    /// Returns whether the item is parked or snoozed, so that it must not be assigned.
    pub fn holds_back(&self, now: Time) -> bool {
        self.parked.is_some() || self.not_before.is_some_and(|time| time > now)
    }
}

/// What happens to the queue item of a run that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// The item is removed, and a follow-up schedule is stored.
    Complete,
    /// The item returns to its position in the queue, in this state.
    Requeue(ItemState),
}

impl RetryRule {
    /// Returns whether the rule applies to a run.
    pub fn matches(&self, run: &Run) -> bool {
        let code = |pattern: &String| matches_code(pattern, &run.code);
        let stage = |start: &String| {
            let rest = run
                .failure_stage
                .as_deref()
                .and_then(|stage| stage.strip_prefix(start.as_str()));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        run.code.is_failure()
            && (self.codes.is_empty() || self.codes.iter().any(code))
            && self.stage.as_ref().is_none_or(stage)
            && self
                .transient
                .is_none_or(|transient| transient == run.is_transient())
    }

    /// Returns the delay after that many failures; `chance` is from 0 to 1.
    fn delay_after(&self, failures: u32, chance: f64) -> TimeDelta {
        let seconds = |delta: TimeDelta| delta.as_seconds_f64();
        let grown = seconds(self.delay)
            * self
                .factor
                .powi(i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX));
        let delay = grown.min(seconds(self.max_delay)) * (1.0 + self.jitter * (2.0 * chance - 1.0));
        #[expect(clippy::cast_possible_truncation)]
        TimeDelta::milliseconds((delay * 1000.0) as i64)
    }

    fn decide(&self, run: &Run, mut attempts: Attempts, chance: f64, now: Time) -> Disposition {
        let failures = attempts.entry(self.name.clone()).or_default();
        *failures = failures.saturating_add(1);
        let failures = *failures;
        if failures < self.attempts {
            let not_before =
                (self.delay > TimeDelta::zero()).then(|| now + self.delay_after(failures, chance));
            return Disposition::Requeue(ItemState {
                attempts,
                not_before,
                parked: None,
                repeats: None,
            });
        }
        match self.afterwards {
            Afterwards::Reschedule => Disposition::Complete,
            Afterwards::Park => {
                let last = run.description.as_deref().unwrap_or("no description");
                let reason = format!(
                    "{}: {failures} runs in a row, the last was {} ({last})",
                    self.name, run.code
                );
                Disposition::Requeue(ItemState {
                    attempts,
                    not_before: None,
                    parked: Some(Parked { reason, since: now }),
                    repeats: None,
                })
            }
        }
    }
}

/// Returns whether a code matches a pattern; `*` at the end of the pattern matches any rest.
pub fn matches_code(pattern: &str, code: &ResultCode) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => code.as_str().starts_with(start),
        None => pattern == code.as_str(),
    }
}

/// The retry rules; the first that matches decides.
///
/// ```
/// use chrono::TimeDelta;
/// use janitor_runner::domain::{
///     active_run::{ActiveRun, Claimant},
///     finish,
///     name::{CampaignName, CodebaseName, RunId},
///     queue::{Bucket, QueueItem, QueueKey},
///     retry::{Afterwards, Attempts, Disposition, RetryRule, RetryRules},
///     termination::Abandonment,
///     time,
/// };
///
/// let rules = RetryRules(vec![RetryRule {
///     name: "transient".into(),
///     codes: vec!["worker-*".into()],
///     stage: None,
///     transient: Some(true),
///     attempts: 3,
///     delay: TimeDelta::minutes(1),
///     factor: 2.0,
///     max_delay: TimeDelta::hours(1),
///     jitter: 0.0,
///     afterwards: Afterwards::Park,
/// }]);
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
/// let now = time::parse("now", "2026-11-23T10:00:00")?;
/// let active = ActiveRun::new(RunId::new("r"), "token".into(), item, Claimant::default(), now);
/// let silent = Abandonment::new(&active, "worker-timeout", "silent".into(), now);
/// let run = finish::vanished(&active, silent, now);
///
/// let Disposition::Requeue(state) = rules.decide(&run, Attempts::new(), 0.5, now) else {
///     unreachable!("the first attempt is not the last");
/// };
/// assert_eq!(state.not_before, Some(now + TimeDelta::minutes(1)));
///
/// let Disposition::Requeue(state) = rules.decide(&run, state.attempts, 0.5, now) else {
///     unreachable!("the second attempt is not the last");
/// };
/// assert_eq!(state.not_before, Some(now + TimeDelta::minutes(2)));
///
/// let Disposition::Requeue(state) = rules.decide(&run, state.attempts, 0.5, now) else {
///     unreachable!("an item is parked, not completed");
/// };
/// assert!(state.parked.is_some());
/// # Ok::<(), janitor_runner::domain::Invalid>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RetryRules(pub Vec<RetryRule>);

impl RetryRules {
    /// Returns the rule that applies to a run.
    pub fn rule(&self, run: &Run) -> Option<&RetryRule> {
        self.0.iter().find(|rule| rule.matches(run))
    }

    /// Decides what happens to the item of a run, given its earlier failed attempts. `chance` is
    /// from 0 to 1 and chooses the jitter.
    pub fn decide(&self, run: &Run, attempts: Attempts, chance: f64, now: Time) -> Disposition {
        self.rule(run).map_or(Disposition::Complete, |rule| {
            rule.decide(run, attempts, chance, now)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        active_run::{ActiveRun, Claimant},
        finish::{end, tests::item, vanished},
        name::RunId,
        termination::Abandonment,
        time,
    };
    use proptest::prelude::*;

    fn now() -> Time {
        time::parse("t", "2026-01-01T00:00:00").unwrap()
    }

    fn run(code: &str, transient: bool, stage: Option<&str>) -> Run {
        let active = ActiveRun::new(
            RunId::new("r"),
            "t".into(),
            item(),
            Claimant::default(),
            now(),
        );
        Run {
            failure_stage: stage.map(Into::into),
            ..end(&active, code, "why".into(), transient, now())
        }
    }

    fn rule(attempts: u32, delay: i64) -> RetryRule {
        RetryRule {
            name: "r".into(),
            codes: vec![],
            stage: None,
            transient: Some(true),
            attempts,
            delay: TimeDelta::seconds(delay),
            factor: 2.0,
            max_delay: TimeDelta::hours(1),
            jitter: 0.2,
            afterwards: Afterwards::Park,
        }
    }

    fn state(disposition: Disposition) -> ItemState {
        let Disposition::Requeue(state) = disposition else {
            panic!("{disposition:?}")
        };
        state
    }

    #[test]
    fn rules_match_by_code_stage_and_transience() {
        let any = RetryRule {
            transient: None,
            ..rule(1, 0)
        };
        let by_code = RetryRule {
            codes: vec!["worker-*".into(), "odd".into()],
            ..any.clone()
        };
        for (code, matches) in [
            ("worker-timeout", true),
            ("odd", true),
            ("odder", false),
            ("success", false),
        ] {
            assert_eq!(by_code.matches(&run(code, false, None)), matches, "{code}");
        }
        let by_stage = RetryRule {
            stage: Some("setup".into()),
            ..any
        };
        for (stage, matches) in [
            (Some("setup"), true),
            (Some("setup/clone"), true),
            (Some("setups"), false),
            (None, false),
        ] {
            assert_eq!(
                by_stage.matches(&run("failed", false, stage)),
                matches,
                "{stage:?}"
            );
        }
        let transient_only = rule(1, 0);
        assert!(transient_only.matches(&run("x", true, None)));
        assert!(!transient_only.matches(&run("x", false, None)));
    }

    #[test]
    fn last_attempt_parks_the_item() {
        let retries = RetryRules(vec![RetryRule {
            name: "vanished".into(),
            ..rule(3, 0)
        }]);
        let active = ActiveRun::new(
            RunId::new("r"),
            "t".into(),
            item(),
            Claimant::default(),
            now(),
        );
        let silent = Abandonment::new(&active, "worker-timeout", "silent".into(), now());
        let gone = vanished(&active, silent, now());
        let mut attempts = Attempts::new();
        for _ in 0..2 {
            let requeued = state(retries.decide(&gone, attempts, 0.5, now()));
            assert!(!requeued.holds_back(now()));
            attempts = requeued.attempts;
        }
        let parked = state(retries.decide(&gone, attempts, 0.5, now()));
        assert!(parked.holds_back(now()));
        let reason = parked.parked.unwrap().reason;
        assert!(reason.starts_with("vanished: 3 runs in a row"), "{reason}");
    }

    #[test]
    fn item_is_completed_without_a_rule_or_after_reschedule() {
        assert_eq!(
            RetryRules(vec![rule(9, 1)]).decide(
                &run("failed", false, None),
                Attempts::new(),
                0.5,
                now()
            ),
            Disposition::Complete
        );
        let over = RetryRule {
            afterwards: Afterwards::Reschedule,
            ..rule(1, 1)
        };
        assert_eq!(
            RetryRules(vec![over]).decide(&run("failed", true, None), Attempts::new(), 0.5, now()),
            Disposition::Complete
        );
    }

    proptest! {
        #[test]
        fn delays_grow_up_to_the_maximum(failures in 1..80_u32, chance in 0.0..1.0_f64) {
            let delay = |failures, chance| {
                rule(1, 60).delay_after(failures, chance).num_milliseconds()
            };
            prop_assert!(delay(failures, 0.5) <= delay(failures + 1, 0.5));
            prop_assert!(delay(failures, chance) <= 3_600_000 * 12 / 10);
            prop_assert!(delay(failures, chance) >= 60_000 * 8 / 10);
        }
    }
}
