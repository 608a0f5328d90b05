//! What becomes of a queue item whose run failed in a way that a repeat may cure: it comes back to its own place, later
//! each time, and is parked when that was tried often enough. Nothing is tried for ever, nothing is forgotten.

use super::{
    run::{ResultCode, Run},
    time::Time,
};
use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What is done once the attempts are used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Afterwards {
    /// The item waits until somebody releases it.
    Park,
    /// The item goes, and its candidate is scheduled by the usual arithmetic.
    Reschedule,
}

/// What is done about failures of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct RetryRule {
    /// What attempts are counted under, and what a parked item names.
    pub name: String,
    /// Result codes; `*` at the end stands for anything. None: all.
    pub codes: Vec<String>,
    /// The start of the stage, at whole parts.
    pub stage: Option<String>,
    /// Whether the failure is said to be transient; none: either.
    pub transient: Option<bool>,
    /// Runs in a row that may fail like this.
    pub attempts: u32,
    /// The pause after the first; zero: none at all.
    pub delay: TimeDelta,
    /// What it grows by each time.
    pub factor: f64,
    /// What it does not grow beyond.
    pub max_delay: TimeDelta,
    /// The share of the pause that chance adds or takes.
    pub jitter: f64,
    /// After the last attempt.
    pub afterwards: Afterwards,
}

/// Failed runs of an item in a row, by the rule that they fell under.
pub type Tries = BTreeMap<String, u32>;

/// An item that waits for somebody to release it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs)]
pub struct Parked {
    pub reason: String,
    #[serde(with = "super::time::as_iso")]
    pub since: Time,
}

/// What is known of an item beside the item itself. Most items have none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[expect(missing_docs)]
pub struct ItemState {
    pub tries: Tries,
    /// It is not handed out before.
    #[serde(with = "super::time::as_iso::option")]
    pub not_before: Option<Time>,
    pub parked: Option<Parked>,
}

impl ItemState {
    /// Whether it keeps the item from being handed out.
    pub fn holds_back(&self, now: Time) -> bool {
        self.parked.is_some() || self.not_before.is_some_and(|time| time > now)
    }
}

/// What becomes of the item of an ended run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Disposition {
    /// It goes, and a follow-up schedule is noted.
    Complete,
    /// It goes back to its own place, in this state.
    Requeue(ItemState),
}

impl RetryRule {
    /// Whether a failure is of this kind.
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

    /// The pause after so many failures; `chance` is from 0 to 1.
    fn pause(&self, failures: u32, chance: f64) -> TimeDelta {
        let seconds = |delta: TimeDelta| delta.as_seconds_f64();
        let grown = seconds(self.delay)
            * self
                .factor
                .powi(i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX));
        let pause = grown.min(seconds(self.max_delay)) * (1.0 + self.jitter * (2.0 * chance - 1.0));
        #[expect(clippy::cast_possible_truncation)]
        TimeDelta::milliseconds((pause * 1000.0) as i64)
    }

    fn decide(&self, run: &Run, mut tries: Tries, chance: f64, now: Time) -> Disposition {
        let failures = tries.entry(self.name.clone()).or_default();
        *failures = failures.saturating_add(1);
        let failures = *failures;
        if failures < self.attempts {
            let not_before =
                (self.delay > TimeDelta::zero()).then(|| now + self.pause(failures, chance));
            return Disposition::Requeue(ItemState {
                tries,
                not_before,
                parked: None,
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
                    tries,
                    not_before: None,
                    parked: Some(Parked { reason, since: now }),
                })
            }
        }
    }
}

/// Whether a code is one that a pattern stands for.
pub fn matches_code(pattern: &str, code: &ResultCode) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => code.as_str().starts_with(start),
        None => pattern == code.as_str(),
    }
}

/// The rules, the first that matches decides.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RetryRules(pub Vec<RetryRule>);

impl RetryRules {
    /// The rule for a run's failure.
    pub fn rule(&self, run: &Run) -> Option<&RetryRule> {
        self.0.iter().find(|rule| rule.matches(run))
    }

    /// What becomes of the item of a run, which failed so often before. `chance` is from 0 to 1.
    pub fn decide(&self, run: &Run, tries: Tries, chance: f64, now: Time) -> Disposition {
        self.rule(run).map_or(Disposition::Complete, |rule| {
            rule.decide(run, tries, chance, now)
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
        assert!(
            rule(1, 0).matches(&run("x", true, None))
                && !rule(1, 0).matches(&run("x", false, None))
        );
    }

    #[test]
    fn the_third_vanished_worker_parks_the_item() {
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
        let gone = vanished(&active, "worker-timeout", "silent".into(), now());
        let mut tries = Tries::new();
        for _ in 0..2 {
            let back = state(retries.decide(&gone, tries, 0.5, now()));
            assert!(!back.holds_back(now()));
            tries = back.tries;
        }
        let parked = state(retries.decide(&gone, tries, 0.5, now()));
        assert!(
            parked.holds_back(now())
                && parked
                    .parked
                    .unwrap()
                    .reason
                    .starts_with("vanished: 3 runs in a row")
        );
    }

    #[test]
    fn what_no_rule_matches_is_done() {
        assert_eq!(
            RetryRules(vec![rule(9, 1)]).decide(
                &run("failed", false, None),
                Tries::new(),
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
            RetryRules(vec![over]).decide(&run("failed", true, None), Tries::new(), 0.5, now()),
            Disposition::Complete
        );
    }

    proptest! {
        #[test]
        fn pauses_grow_up_to_the_longest(failures in 1..80_u32, chance in 0.0..1.0_f64) {
            let pause = |failures, chance| rule(1, 60).pause(failures, chance).num_milliseconds();
            prop_assert!(pause(failures, 0.5) <= pause(failures + 1, 0.5));
            prop_assert!(pause(failures, chance) <= 3_600_000 * 12 / 10);
            prop_assert!(pause(failures, chance) >= 60_000 * 8 / 10);
        }
    }
}
