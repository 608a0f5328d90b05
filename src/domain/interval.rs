//! The least interval between runs of one codebase and campaign that nobody asked for.
//!
//! Each run is followed by a schedule of the same pair. In a small catalog its turn comes at once:
//! without an interval, a script that finds nothing to do would run thousands of times an hour.

use super::{queue::Interval, run::ResultCode, schedule::PastRun, termination::UNASSIGNABLE_CODES};
use chrono::TimeDelta;

/// The least interval after a run of an item that cannot be assigned: what is wrong with it changes
/// by a change of settings or of the codebase.
const UNASSIGNABLE_INTERVAL: TimeDelta = TimeDelta::hours(1);

/// How the interval grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntervalRules {
    /// The interval after the second run in a row that ended alike; it doubles with each. Zero
    /// means that there is none.
    pub first: TimeDelta,
    /// The longest interval.
    pub longest: TimeDelta,
}

/// How a run ended, as far as another one is expected to end like it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Success,
    Nothing,
    Failure,
}

impl Outcome {
    fn of(code: &ResultCode) -> Self {
        if code.is_success() {
            Self::Success
        } else if code.is_failure() {
            Self::Failure
        } else {
            Self::Nothing
        }
    }
}

impl IntervalRules {
    fn after(&self, last: &PastRun, repeats: u32) -> Option<TimeDelta> {
        if self.first <= TimeDelta::zero() {
            return None;
        }
        if UNASSIGNABLE_CODES.contains(&last.code.as_str()) {
            return Some(self.longest.min(UNASSIGNABLE_INTERVAL.max(self.first)));
        }
        let doublings = repeats.checked_sub(2)?;
        let factor = 1_i32.checked_shl(doublings).filter(|factor| *factor > 0);
        let grown = factor.and_then(|factor| self.first.checked_mul(factor));
        Some(grown.unwrap_or(self.longest).min(self.longest))
    }

    /// Returns the interval that the schedule after the last of these runs of a pair waits for.
    ///
    /// ```
    /// use chrono::TimeDelta;
    /// use janitor_runner::domain::{interval::IntervalRules, run::ResultCode, schedule::PastRun, time};
    ///
    /// let run = |start: &str| PastRun {
    ///     code: ResultCode::new("nothing-to-do"),
    ///     start_time: time::parse("t", start).unwrap(),
    ///     duration: 60.0,
    ///     instigated_context: None,
    ///     context: None,
    ///     dependencies_satisfied_now: false,
    /// };
    /// let rules = IntervalRules { first: TimeDelta::minutes(10), longest: TimeDelta::days(1) };
    /// let one = [run("2026-01-01T00:00:00")];
    /// assert_eq!(rules.interval(&one), None);
    /// let two = [run("2026-01-01T00:00:00"), run("2026-01-01T00:05:00")];
    /// let interval = rules.interval(&two).unwrap();
    /// assert_eq!(interval.until, time::parse("t", "2026-01-01T00:16:00").unwrap());
    /// ```
    pub fn interval(&self, history: &[PastRun]) -> Option<Interval> {
        let last = history.iter().max_by_key(|run| run.start_time)?;
        let outcome = Outcome::of(&last.code);
        let other = history
            .iter()
            .filter(|run| Outcome::of(&run.code) != outcome)
            .map(|run| run.start_time)
            .max();
        let alike = history.iter().filter(|run| {
            Outcome::of(&run.code) == outcome && other.is_none_or(|other| run.start_time > other)
        });
        let repeats = u32::try_from(alike.count()).unwrap_or(u32::MAX);
        let after = self.after(last, repeats)?;
        #[expect(clippy::cast_possible_truncation)]
        let duration = TimeDelta::milliseconds((last.duration.max(0.0) * 1000.0) as i64);
        let until = last
            .start_time
            .checked_add_signed(duration)?
            .checked_add_signed(after)?;
        Some(Interval { until, repeats })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn start() -> crate::domain::time::Time {
        super::super::time::parse("t", "2026-01-01T00:00:00").unwrap()
    }

    fn history(codes: &[&str]) -> Vec<PastRun> {
        let run = |(minute, code): (i64, &&str)| PastRun {
            code: ResultCode::new(*code),
            start_time: start() + TimeDelta::minutes(minute),
            duration: 0.0,
            instigated_context: None,
            context: None,
            dependencies_satisfied_now: false,
        };
        (0..).zip(codes).map(run).collect()
    }

    fn rules() -> IntervalRules {
        IntervalRules {
            first: TimeDelta::minutes(10),
            longest: TimeDelta::minutes(60),
        }
    }

    #[test]
    fn interval_grows_with_runs_that_end_alike() {
        for (codes, minutes) in [
            (&["success"][..], None),
            (&["success", "success"], Some(10)),
            (
                &["nothing-to-do", "nothing-new-to-do", "nothing-to-do"],
                Some(20),
            ),
            (&["success", "failed", "odd"], Some(10)),
            (&["failed", "failed", "success"], None),
            (&["failed"; 5], Some(60)),
            (&["failed"; 70], Some(60)),
            (&["not-in-vcs"], Some(60)),
        ] {
            let history = history(codes);
            let interval = rules().interval(&history);
            let waited = interval.map(|interval| {
                (interval.until - history.last().unwrap().start_time).num_minutes()
            });
            assert_eq!(waited, minutes, "{codes:?}");
        }
        let none = IntervalRules {
            first: TimeDelta::zero(),
            ..rules()
        };
        assert_eq!(none.interval(&history(&["failed"; 9])), None);
        assert_eq!(rules().interval(&[]), None);
    }

    proptest! {
        #[test]
        fn interval_does_not_depend_on_the_order_of_the_history(
            codes in prop::collection::vec(prop::sample::select(&["success", "failed", "nothing-to-do"][..]), 1..12),
            seed in any::<prop::sample::Index>(),
        ) {
            let sorted = history(&codes);
            let mut rotated = sorted.clone();
            rotated.rotate_left(seed.index(sorted.len()));
            prop_assert_eq!(rules().interval(&sorted), rules().interval(&rotated));
        }
    }
}
