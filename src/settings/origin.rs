//! Where the value of a key came from.

use figment::{Figment, Metadata};

/// Describes a layer for people.
pub(super) fn describe(layer: &Metadata) -> String {
    match &layer.source {
        Some(source) => source.to_string(),
        None if layer.name.contains("string") => "the built-in defaults".to_owned(),
        None => layer.name.to_string(),
    }
}

/// Describes the layer that the value of `key` came from.
pub(super) fn of_key(layers: &Figment, key: &str) -> String {
    layers
        .find_metadata(key)
        .map_or_else(|| "the built-in defaults".to_owned(), describe)
}
