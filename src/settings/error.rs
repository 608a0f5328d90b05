//! Why settings cannot be used.

use super::origin;
use std::fmt::Write;

/// Why settings cannot be used. The message names each key, its value and the layer it came from.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(pub(super) String);

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
            // Writing to a string cannot fail.
            let _ = write!(text, "{separator}{key}: {} (from {layer})", error.kind);
        }
        Self(text)
    }
}
