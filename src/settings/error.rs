//! Why settings cannot be used.
//!
//! No message has a value in it that could be a secret: a value that is of the wrong type or in the
//! wrong place may be one, so only its type is named.

use super::origin;
use crate::domain::redact::redact;
use figment::error::{Actual, Kind};
use std::{fmt::Write, path::Path};

/// Why settings cannot be used. The message names each key, and the layer it came from.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub(super) String);

impl SettingsError {
    /// Says where a file is not TOML. The parser's own message quotes the line, and the line may
    /// have a secret.
    pub(super) fn not_toml(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            + 1;
        // What was expected instead may fill more lines.
        let message = error.message().replace('\n', ", ");
        Self(format!(
            "{}: line {line}, column {column}: {message}",
            file.display()
        ))
    }
}

/// Names the type of a value.
fn kind_of(actual: &Actual) -> &str {
    match actual {
        Actual::Bool(_) => "a boolean",
        Actual::Unsigned(_) | Actual::Signed(_) => "an integer",
        Actual::Float(_) => "a float",
        Actual::Char(_) | Actual::Str(_) => "a string",
        Actual::Bytes(_) => "bytes",
        Actual::Unit | Actual::Option => "nothing",
        Actual::Seq => "a list",
        Actual::Map => "a table",
        _ => "another type",
    }
}

/// Describes an error without the value that it is about.
fn describe(kind: &Kind) -> String {
    match kind {
        Kind::InvalidType(actual, expected) | Kind::InvalidValue(actual, expected) => {
            format!("found {}, expected {expected}", kind_of(actual))
        }
        Kind::Unsupported(actual) => format!("{} is not supported", kind_of(actual)),
        Kind::UnsupportedKey(actual, expected) => {
            format!("found {} as a key, expected {expected}", kind_of(actual))
        }
        Kind::UnknownVariant(_, known) => format!("is none of {}", known.join(", ")),
        Kind::ISizeOutOfRange(_) | Kind::USizeOutOfRange(_) => "is out of range".to_owned(),
        // The names of fields are no secrets, and our own messages have no values.
        other => redact(&other.to_string()),
    }
}

/// Lists every key that could not be read, each with the layer it came from.
impl From<&figment::Error> for SettingsError {
    fn from(errors: &figment::Error) -> Self {
        let mut text = String::new();
        for error in errors.clone() {
            let key = error.path.join(".");
            let layer = error
                .metadata
                .as_ref()
                .map_or_else(|| "the defaults".to_owned(), origin::describe);
            let separator = if text.is_empty() { "" } else { "\n" };
            let what = describe(&error.kind);
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{key}: {what} (from {layer})");
        }
        Self(text)
    }
}
