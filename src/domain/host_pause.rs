//! How long a host is left alone that limits the rate of requests.

use super::time::Time;
use chrono::TimeDelta;

/// The pause after the first response without a time.
const FIRST: TimeDelta = TimeDelta::seconds(120);
/// The longest pause without a time.
const LONGEST: TimeDelta = TimeDelta::hours(1);
/// After so long without a rate limit the pauses begin anew.
const QUIET: TimeDelta = TimeDelta::hours(1);
/// The longest pause that a host is believed.
const MAX_BELIEVED: TimeDelta = TimeDelta::days(1);
/// The shortest, so that a host that says "now" is not asked without end.
const MIN_BELIEVED: TimeDelta = TimeDelta::seconds(1);

/// The pauses of one host.
///
/// ```
/// use janitor_runner::domain::{host_pause::HostPauses, time};
///
/// let now = time::parse("now", "2026-11-26T10:00:00")?;
/// let mut pauses = HostPauses::default();
/// let first = pauses.end_of_next(None, now);
/// assert_eq!((first - now).num_seconds(), 120);
/// assert_eq!((pauses.end_of_next(None, first) - first).num_seconds(), 240);
/// # Ok::<(), janitor_runner::domain::Invalid>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostPauses {
    /// The last pause whose length we chose, and its end.
    last: Option<(TimeDelta, Time)>,
}

impl HostPauses {
    /// Returns the end of the pause that begins `now`, after which the host asked to be left alone
    /// for `asked`, or did not say for how long.
    pub fn end_of_next(&mut self, asked: Option<TimeDelta>, now: Time) -> Time {
        if let Some(asked) = asked {
            return now + asked.clamp(MIN_BELIEVED, MAX_BELIEVED);
        }
        let pause = match self.last {
            // Responses to requests that were sent before the pause began are no repeat.
            Some((_, end)) if now < end => return end,
            Some((last, end)) if now - end < QUIET => (last * 2).min(LONGEST),
            _ => FIRST,
        };
        let end = now + pause;
        self.last = Some((pause, end));
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::parse;

    fn now() -> Time {
        parse("t", "2026-11-26T10:00:00").unwrap()
    }

    #[test]
    fn pauses_double_up_to_an_hour_and_begin_anew_after_one_of_quiet() {
        let (mut pauses, mut now) = (HostPauses::default(), now());
        let mut seconds = vec![];
        for _ in 0..7 {
            let end = pauses.end_of_next(None, now);
            seconds.push((end - now).num_seconds());
            now = end;
        }
        assert_eq!(seconds, [120, 240, 480, 960, 1920, 3600, 3600]);
        now += TimeDelta::minutes(61);
        assert_eq!(pauses.end_of_next(None, now) - now, FIRST);
    }

    #[test]
    fn responses_during_a_pause_do_not_double_it() {
        let (mut pauses, now) = (HostPauses::default(), now());
        let end = pauses.end_of_next(None, now);
        for seconds in [0, 1, 60] {
            let during = now + TimeDelta::seconds(seconds);
            assert_eq!(pauses.end_of_next(None, during), end, "{seconds}");
        }
        assert_eq!(pauses.end_of_next(None, end) - end, FIRST * 2);
    }

    #[test]
    fn at_most_a_day_is_believed_and_at_least_a_second() {
        let mut pauses = HostPauses::default();
        let mut pause = |asked| pauses.end_of_next(Some(asked), now()) - now();
        assert_eq!(pause(TimeDelta::seconds(30)), TimeDelta::seconds(30));
        assert_eq!(pause(TimeDelta::days(400)), MAX_BELIEVED);
        assert_eq!(pause(TimeDelta::zero()), MIN_BELIEVED);
        assert_eq!(pause(TimeDelta::seconds(-5)), MIN_BELIEVED);
    }
}
