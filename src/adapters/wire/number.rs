//! Numbers in requests to the endpoints of the Python runner, where existing clients send them as
//! text too.

use serde::{
    Deserializer,
    de::{Error, Unexpected, Visitor},
};
use std::{fmt, marker::PhantomData, str::FromStr};

/// A kind of number that a request may contain.
pub(super) trait Number: Sized {
    /// Converts an integer, if the kind has it.
    fn from_integer(number: i128) -> Option<Self>;
    /// Converts a number with a fraction, if the kind has it.
    fn from_float(number: f64) -> Option<Self>;
    /// Parses text.
    fn parse(text: &str) -> Option<Self>;
}

impl Number for f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "JSON has no more precise numbers than this"
    )]
    fn from_integer(number: i128) -> Option<Self> {
        Some(number as Self)
    }

    fn from_float(number: f64) -> Option<Self> {
        Some(number)
    }

    fn parse(text: &str) -> Option<Self> {
        // `nan` and `inf` are numbers to Rust, but nothing can be done with them.
        Self::from_str(text)
            .ok()
            .filter(|number| number.is_finite())
    }
}

impl Number for i64 {
    fn from_integer(number: i128) -> Option<Self> {
        number.try_into().ok()
    }

    fn from_float(number: f64) -> Option<Self> {
        // Python clients write whole numbers as floats too. Above this, floats skip some.
        let is_whole = number.fract() == 0.0 && number.abs() < 1e15;
        is_whole.then(|| format!("{number:.0}").parse().ok())?
    }

    fn parse(text: &str) -> Option<Self> {
        text.parse()
            .ok()
            .or_else(|| Self::from_float(text.parse().ok()?))
    }
}

struct NumberVisitor<T>(PhantomData<T>);

impl<'de, T: Number> Visitor<'de> for NumberVisitor<T> {
    type Value = Option<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number, or text that is one")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        T::from_integer(number.into())
            .map(Some)
            .ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        T::from_integer(number.into())
            .map(Some)
            .ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        T::from_float(number)
            .map(Some)
            .ok_or_else(|| E::invalid_type(Unexpected::Float(number), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        T::parse(text.trim())
            .map(Some)
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Deserializes an optional number that may be text; for `deserialize_with`.
pub(super) fn or_text<'de, T: Number, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    deserializer.deserialize_option(NumberVisitor(PhantomData))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::{Value, json};

    #[derive(Deserialize)]
    struct Body {
        #[serde(default, deserialize_with = "or_text")]
        offset: Option<f64>,
        #[serde(default, deserialize_with = "or_text")]
        value: Option<i64>,
    }

    fn offset(offset: Value) -> Result<Option<f64>, serde_json::Error> {
        let body: Body = serde_json::from_value(json!({ "offset": offset }))?;
        Ok(body.offset)
    }

    fn value(value: Value) -> Result<Option<i64>, serde_json::Error> {
        let body: Body = serde_json::from_value(json!({ "value": value }))?;
        Ok(body.value)
    }

    #[test]
    fn numbers_and_text_are_numbers() {
        for number in [json!(12), json!(12.0), json!("12"), json!(" 12.0 ")] {
            assert_eq!(offset(number.clone()).unwrap(), Some(12.0), "{number}");
        }
        for number in [json!(7), json!(7.0), json!("7"), json!("7.0")] {
            assert_eq!(value(number.clone()).unwrap(), Some(7), "{number}");
        }
        assert_eq!(offset(json!(null)).unwrap(), None);
        let absent: Body = serde_json::from_value(json!({})).unwrap();
        assert_eq!(absent.offset, None);
    }

    #[test]
    fn other_values_are_rejected() {
        for other in [
            json!(""),
            json!("twelve"),
            json!("nan"),
            json!("inf"),
            json!(true),
            json!([1]),
        ] {
            assert!(offset(other.clone()).is_err(), "{other}");
        }
        for other in [json!(1.5), json!("1.5"), json!(u64::MAX)] {
            assert!(value(other.clone()).is_err(), "{other}");
        }
    }
}
