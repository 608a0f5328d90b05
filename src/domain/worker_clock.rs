//! The clock of a worker, which is not believed: it may have been set wrongly, or never.

use super::time::{Time, micros};
use chrono::TimeDelta;

/// How much longer than it was active a run may be reported to have taken, in a report whose times
/// are of another day.
const MAX_EXCESS: TimeDelta = TimeDelta::minutes(1);
/// How old the times of such a report may be. Clocks that were never set begin in 1970 or 2000.
const MAX_AGE: TimeDelta = TimeDelta::days(5 * 365);

/// The start and the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// Its start.
    pub start: Time,
    /// Its end, which is not before the start.
    pub finish: Time,
    /// Whether the report is one that was made on another day and is sent now, as recorded
    /// exchanges are. Its sender gets the times back that it sent.
    pub is_replayed: bool,
}

/// Fits the times that a worker reports between the claim of its run and the receipt of the report.
///
/// A period that is wholly outside of these comes from a clock that is set wrongly: it begins with
/// the claim, as runs do, and its length is kept as far as it fits. A late result thus remains older
/// than a run that was claimed after it.
pub fn fit(start: Option<Time>, finish: Option<Time>, claim: Time, receipt: Time) -> Period {
    let claim = micros(claim);
    let receipt = micros(receipt).max(claim);
    let (said_start, said_finish) = (start.unwrap_or(claim), finish.unwrap_or(receipt));
    let length = said_finish - said_start;
    let is_outside = said_finish < claim || said_start > receipt;
    if start.is_none() || finish.is_none() || !is_outside || length < TimeDelta::zero() {
        let finish = said_finish.clamp(claim, receipt);
        return Period {
            start: said_start.clamp(claim, receipt).min(finish),
            finish,
            is_replayed: false,
        };
    }
    let active = receipt - claim;
    // No worker with a wrong clock reports this: a run cannot take longer than it is active. The
    // bounds keep it from spoiling the estimates.
    let is_replayed = said_finish < claim
        && claim - said_start <= MAX_AGE
        && length > active
        && length <= active + MAX_EXCESS;
    let (start, finish) = if is_replayed {
        (receipt - length, receipt)
    } else {
        (claim, claim + length.min(active))
    };
    Period {
        start,
        finish,
        is_replayed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::time::parse;
    use proptest::prelude::*;

    fn at(text: &str) -> Time {
        parse("t", text).unwrap()
    }

    fn claim() -> Time {
        at("2026-11-26T10:00:00")
    }

    fn receipt() -> Time {
        at("2026-11-26T10:10:00")
    }

    fn fitted(start: Option<&str>, finish: Option<&str>) -> (Time, Time) {
        let period = fit(start.map(at), finish.map(at), claim(), receipt());
        assert!(!period.is_replayed);
        (period.start, period.finish)
    }

    #[test]
    fn times_between_claim_and_receipt_are_kept() {
        let (start, finish) = ("2026-11-26T10:00:01", "2026-11-26T10:09:00");
        assert_eq!(fitted(Some(start), Some(finish)), (at(start), at(finish)));
        assert_eq!(fitted(Some(start), None), (at(start), receipt()));
        assert_eq!(fitted(None, Some(finish)), (claim(), at(finish)));
        assert_eq!(fitted(None, None), (claim(), receipt()));
    }

    #[test]
    fn times_outside_are_clamped() {
        let inside = "2026-11-26T10:05:00";
        assert_eq!(
            fitted(Some("1970-01-01T00:00:00"), Some(inside)),
            (claim(), at(inside))
        );
        assert_eq!(
            fitted(Some(inside), Some("2099-01-01T00:00:00")),
            (at(inside), receipt())
        );
        assert_eq!(
            fitted(Some("1970-01-01T00:00:00"), Some("2099-01-01T00:00:00")),
            (claim(), receipt())
        );
        // Swapped: it ends when it starts.
        assert_eq!(
            fitted(Some("2026-11-26T10:09:00"), Some(inside)),
            (at(inside), at(inside))
        );
        assert_eq!(
            fitted(Some("2099-01-01T00:00:00"), Some("1970-01-01T00:00:00")),
            (claim(), claim())
        );
    }

    #[test]
    fn clock_that_is_set_wrongly_keeps_its_seconds() {
        for day in ["1970-01-01", "2026-11-25", "2099-01-01"] {
            let period = fitted(
                Some(&format!("{day}T00:00:00")),
                Some(&format!("{day}T00:04:00")),
            );
            assert_eq!(period, (claim(), at("2026-11-26T10:04:00")), "{day}");
        }
        let year = fitted(Some("1970-01-01T00:00:00"), Some("1971-01-01T00:00:00"));
        assert_eq!(year, (claim(), receipt()));
    }

    #[test]
    fn replayed_report_keeps_a_minute_more_than_the_run_was_active() {
        let replayed = |start, finish| fit(Some(at(start)), Some(at(finish)), claim(), claim());
        let recorded = replayed("2026-01-02T03:04:05", "2026-01-02T03:05:05");
        assert!(recorded.is_replayed);
        assert_eq!(recorded.finish - recorded.start, TimeDelta::minutes(1));
        assert_eq!(recorded.finish, claim());
        for (start, finish) in [
            ("2026-01-02T03:04:05", "2026-01-02T03:05:06"),
            ("1970-01-02T03:04:05", "1970-01-02T03:05:05"),
            ("2099-01-02T03:04:05", "2099-01-02T03:05:05"),
        ] {
            let period = replayed(start, finish);
            assert_eq!((period.start, period.finish), (claim(), claim()), "{start}");
        }
    }

    proptest! {
        #[test]
        fn period_stays_between_claim_and_receipt(
            start in proptest::option::of(-4_000_000_000_i64..200_000_000_000),
            finish in proptest::option::of(-4_000_000_000_i64..200_000_000_000),
        ) {
            let time = |seconds| chrono::DateTime::from_timestamp(seconds, 0).unwrap();
            let period = fit(start.map(time), finish.map(time), claim(), receipt());
            prop_assert!(period.start <= period.finish && period.finish <= receipt());
            prop_assert!(period.start >= claim() - MAX_EXCESS);
            prop_assert!(period.is_replayed || period.start >= claim());
        }
    }
}
