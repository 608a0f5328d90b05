//! Checks that several settings share.

use crate::domain::Invalid;
use ipnet::IpNet;

/// Returns the number, unless it is zero.
///
/// # Errors
///
/// Returns an [`Invalid`] that names `field` when the number is zero.
pub(super) fn at_least_one(field: &str, number: u32) -> Result<u32, Invalid> {
    if number == 0 {
        Err(Invalid::new(field, "must not be zero"))
    } else {
        Ok(number)
    }
}

/// Treats an empty text as none: a later layer can only unset a key by emptying it.
pub(super) fn filled(text: Option<String>) -> Option<String> {
    text.filter(|text| !text.is_empty())
}

/// Parses networks.
///
/// # Errors
///
/// Returns an [`Invalid`] that names `field` when a text is none.
pub(super) fn networks(field: &str, texts: &[String]) -> Result<Vec<IpNet>, Invalid> {
    let network = |text: &String| {
        text.parse().map_err(|_| {
            let why = format!("{text:?} is not a network such as 10.0.0.0/8");
            Invalid::new(field, why)
        })
    };
    texts.iter().map(network).collect()
}
