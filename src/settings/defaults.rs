//! The lowest layer.

/// The defaults of all settings, in TOML, compiled in.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");
