//! Times as workers report them: as shells and programming languages print them.

use crate::domain::time::{self, Time, micros};
use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::Value;

/// Numbers from here on count milliseconds: as seconds they would be after the year 5000.
const FIRST_MILLISECONDS: f64 = 1e11;
/// Formats with an offset from UTC, whose minutes may be missing.
const WITH_OFFSET: &[&str] = &[
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f %#z",
    "%Y%m%dT%H%M%S%#z",
    "%b %e %H:%M:%S %#z %Y",
];
/// Formats without one, which are taken for UTC.
const WITHOUT_OFFSET: &[&str] = &[
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y%m%dT%H%M%S",
    "%b %e %H:%M:%S %Y",
    "%b %e %I:%M:%S %p %Y",
    "%e %b %Y %H:%M:%S",
    "%e %b %Y %I:%M:%S %p",
];
const WEEKDAYS: &[&str] = &["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// Parses a reported time; `None` when it is not one from the years 1 to 9999.
pub(super) fn parse(value: &Value) -> Option<Time> {
    match value {
        Value::Number(number) => of_epoch(number.as_f64()?),
        Value::String(text) => of_text(text),
        _ => None,
    }
}

fn of_epoch(number: f64) -> Option<Time> {
    let seconds = if number.abs() >= FIRST_MILLISECONDS {
        number / 1e3
    } else {
        number
    };
    // Until the end of the year 9999.
    if !seconds.is_finite() || !(-62_135_596_800.0..253_402_300_800.0).contains(&seconds) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation)] // It is in the range that was just compared.
    DateTime::from_timestamp_micros((seconds * 1e6).round() as i64)
}

fn of_text(text: &str) -> Option<Time> {
    let text = text.trim();
    if text.len() > 100 {
        return None;
    }
    if let Ok(time) = time::parse("time", text) {
        return Some(time);
    }
    if let Ok(number) = text.parse::<f64>() {
        return of_epoch(number);
    }
    if let Ok(time) = DateTime::parse_from_rfc2822(text) {
        return of_years(time.with_timezone(&Utc));
    }
    let plain = without_names(text);
    let offset = WITH_OFFSET
        .iter()
        .find_map(|format| DateTime::parse_from_str(&plain, format).ok());
    let time = offset.map(|time| time.with_timezone(&Utc)).or_else(|| {
        WITHOUT_OFFSET
            .iter()
            .find_map(|format| NaiveDateTime::parse_from_str(&plain, format).ok())
            .map(|time| time.and_utc())
    });
    of_years(time?)
}

/// Returns the text without the name of the day of the week, which the date says too, and without
/// the names of UTC.
fn without_names(text: &str) -> String {
    let text = text.replace(',', " ");
    let words = text.split_whitespace().filter(|word| {
        let lower = word.to_ascii_lowercase();
        let weekday = lower.chars().all(char::is_alphabetic)
            && WEEKDAYS.iter().any(|day| lower.starts_with(day));
        !weekday && !matches!(lower.as_str(), "utc" | "gmt" | "z")
    });
    words.collect::<Vec<_>>().join(" ")
}

fn of_years(time: Time) -> Option<Time> {
    let year = chrono::Datelike::year(&time);
    (1..=9999).contains(&year).then(|| micros(time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn times_of_shells_and_languages_are_parsed() {
        let expected = time::parse("t", "2026-11-26T10:00:00").unwrap();
        for text in [
            json!("2026-11-26 10:00:00"),
            json!("2026-11-26T10:00:00+0000"),
            json!("2026-11-26 10:00:00+00"),
            json!("2026-11-26 10:00:00 +0000"),
            json!("2026-11-26 10:00:00 +0000 UTC"),
            json!("2026-11-26T10:00:00.000000000Z"),
            json!("2026-11-26 10:00:00.000000000+00:00"),
            json!("2026-11-26 11:00:00.000000000 +01"),
            json!("2026-11-26 10:00:00 UTC"),
            json!("2026-11-26T10:00"),
            json!("20261126T100000Z"),
            json!("Thu, 26 Nov 2026 10:00:00 +0000"),
            json!("Thu, 26 Nov 2026 10:00:00 GMT"),
            json!("Thu Nov 26 10:00:00 UTC 2026"),
            json!("Thu Nov 26 10:00:00 2026"),
            json!("Thu Nov 26 10:00:00 AM UTC 2026"),
            json!("Thu 26 Nov 2026 10:00:00 AM UTC"),
            json!(1_795_687_200),
            json!(1_795_687_200.0),
            json!("1795687200"),
            json!("1795687200.000"),
            json!(1_795_687_200_000_i64),
        ] {
            assert_eq!(parse(&text), Some(expected), "{text}");
        }
        for bad in [
            json!("yesterday"),
            json!(""),
            json!([2026]),
            json!(1e300),
            json!("NaN"),
            json!("+262000-01-01T00:00:00Z"),
            json!(true),
        ] {
            assert_eq!(parse(&bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(text in "\\PC{0,60}", number in any::<f64>()) {
            let _ = parse(&json!(text));
            let _ = parse(&json!(number));
        }
    }
}
