//! Times as the services of the Janitor write them: ISO 8601 in UTC, without a zone suffix, with
//! microseconds only if they are not zero.

use super::Invalid;
use chrono::{DateTime, NaiveDateTime, SubsecRound, Timelike, Utc};

/// A moment, in UTC.
pub type Time = DateTime<Utc>;

/// Formats a time as `2026-11-23T10:00:00.123456`, without the fraction when it is zero.
pub fn iso(time: Time) -> String {
    let time = micros(time);
    let format = if time.nanosecond() == 0 {
        "%Y-%m-%dT%H:%M:%S"
    } else {
        "%Y-%m-%dT%H:%M:%S%.6f"
    };
    time.format(format).to_string()
}

/// Formats a time like [`iso`], truncated to seconds.
pub fn iso_seconds(time: Time) -> String {
    time.format("%Y-%m-%dT%H:%M:%S").to_string()
}

/// Truncates a time to microseconds, the precision that every store keeps.
pub fn micros(time: Time) -> Time {
    time.trunc_subsecs(6)
}

/// Parses ISO 8601 with or without a zone (none means UTC); a space may replace the `T`.
///
/// # Errors
///
/// [`Invalid`] when the text is no time, or its year is not from 1 to 9999.
pub fn parse(field: &str, text: &str) -> Result<Time, Invalid> {
    let wrong = || {
        Invalid::new(
            field,
            format!(
                "{:?} is not a time in ISO 8601",
                text.chars().take(60).collect::<String>()
            ),
        )
    };
    let text = text.trim();
    let time = if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        time.with_timezone(&Utc)
    } else {
        let naive = text
            .parse::<NaiveDateTime>()
            .or_else(|_| NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f"));
        naive.map_err(|_| wrong())?.and_utc()
    };
    // What a Postgres timestamp and four digits of a year can hold.
    let year = chrono::Datelike::year(&time);
    if !(1..=9999).contains(&year) {
        return Err(wrong());
    }
    Ok(micros(time))
}

/// Returns the seconds between two times.
pub fn seconds_between(start: Time, end: Time) -> f64 {
    // Microseconds of ten thousand years fit a float's 53 bits.
    #[expect(clippy::cast_precision_loss)]
    let micros = (end - start).num_microseconds().unwrap_or(i64::MAX) as f64;
    micros / 1e6
}

/// The format of [`Time`] in stored JSON and on the wire: [`iso`].
pub mod as_iso {
    use super::{Time, iso, parse};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Serialises a time with [`iso`].
    pub fn serialize<S: Serializer>(time: &Time, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&iso(*time))
    }

    /// Deserialises what [`parse`] accepts.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Time, D::Error> {
        let text = String::deserialize(from)?;
        parse("time", &text).map_err(D::Error::custom)
    }

    /// The same format for a time that may be absent.
    pub mod option {
        use super::{Deserialize, Deserializer, Error, Serializer, Time, iso, parse};

        /// Serialises a time with [`iso`], or null.
        pub fn serialize<S: Serializer>(time: &Option<Time>, out: S) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => out.serialize_str(&iso(*time)),
                None => out.serialize_none(),
            }
        }

        /// Deserialises a time or null.
        pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Time>, D::Error> {
            let text = Option::<String>::deserialize(from)?;
            text.map(|text| parse("time", &text).map_err(D::Error::custom))
                .transpose()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fraction_is_written_only_when_it_is_not_zero() {
        for text in [
            "2026-11-23T10:00:00.123456",
            "2026-11-23T10:00:00",
            "2026-01-02T03:04:05.250000",
        ] {
            assert_eq!(iso(parse("t", text).unwrap()), text);
        }
    }

    #[test]
    fn zones_are_converted_to_utc() {
        for text in [
            "2026-11-23T10:00:00Z",
            "2026-11-23T12:00:00+02:00",
            "2026-11-23 10:00:00",
        ] {
            assert_eq!(
                iso(parse("t", text).unwrap()),
                "2026-11-23T10:00:00",
                "{text}"
            );
        }
        for bad in [
            "",
            "yesterday",
            "2026-13-01T00:00:00",
            "+262000-01-01T00:00:00Z",
            "12",
        ] {
            assert!(parse("t", bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn written_times_parse_back(micros in 0_i64..4_000_000_000_000_000) {
            let time = DateTime::from_timestamp_micros(micros).unwrap();
            prop_assert_eq!(parse("t", &iso(time)).unwrap(), time);
        }
    }
}
