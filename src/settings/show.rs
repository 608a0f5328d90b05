//! Shows the settings in force, without secrets.

use super::{error::SettingsError, origin};
use crate::domain::redact::{HIDDEN, redact};
use figment::{
    Figment,
    value::{Dict, Value},
};

/// The keys whose values are URLs that may have a login.
const LOCATION_KEYS: [&str; 8] = [
    "store",
    "coordination",
    "events",
    "artifacts",
    "logs",
    "public_vcs_location",
    "gcs.endpoint",
    "s3.endpoint",
];
/// Parts of the names of keys whose values are never shown.
const SECRET_PARTS: [&str; 5] = ["secret", "password", "access_key_id", "credential", "hash"];

/// Returns whether a key is one whose values are never shown.
pub(super) fn is_secret(key: &str) -> bool {
    key != "gcs.credentials"
        && key != "s3.credentials"
        && SECRET_PARTS.iter().any(|part| key.contains(part))
}

/// Returns whether a value of this key may have a secret in it. When it is not valid, nobody knows
/// where in it the secret is.
pub(super) fn may_hold_secret(key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    LOCATION_KEYS.contains(&key)
        || is_secret(key)
        || ["location", "url", "endpoint"]
            .iter()
            .any(|part| name.contains(part))
}

/// Returns whether a text only names the place of a secret.
fn is_placeholder(text: &str) -> bool {
    let inner = text
        .strip_prefix('{')
        .and_then(|text| text.strip_suffix('}'));
    inner.is_some_and(|inner| {
        !inner.contains(['{', '}'])
            && ["file:", "env:"]
                .iter()
                .any(|start| inner.starts_with(start))
    })
}

/// Shows a URL without its login. Its password may have characters that should have been escaped,
/// so that all before the last `@` counts as the login.
fn location(text: &str) -> String {
    let Some((scheme, rest)) = text
        .split_once("://")
        .filter(|(_, rest)| !rest.contains("://"))
    else {
        return redact(text);
    };
    let host = rest.rsplit('@').next().unwrap_or_default();
    redact(&format!("{scheme}://{host}"))
}

fn text(key: &str, text: &str) -> String {
    if is_placeholder(text) {
        text.to_owned()
    } else if is_secret(key) {
        HIDDEN.to_owned()
    } else if LOCATION_KEYS.contains(&key) {
        location(text)
    } else {
        redact(text)
    }
}

/// Formats a value in TOML's notation, without secrets.
pub(super) fn value(value: &Value) -> String {
    of_key("", value)
}

/// Formats the value of a key.
fn of_key(key: &str, value: &Value) -> String {
    match value {
        Value::String(_, shown) => format!("{:?}", text(key, shown)),
        Value::Array(_, list) => format!(
            "[{}]",
            list.iter()
                .map(|entry| of_key(key, entry))
                .collect::<Vec<_>>()
                .join(", ")
        ),
        Value::Dict(_, dict) => inline(dict),
        _ if is_secret(key) => format!("{HIDDEN:?}"),
        Value::Char(_, c) => format!("{:?}", c.to_string()),
        Value::Bool(_, bool) => bool.to_string(),
        Value::Num(_, number) => number
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| number.to_u128().map(|n| n.to_string()))
            .or_else(|| number.to_f64().map(|n| n.to_string()))
            .unwrap_or_default(),
        Value::Empty(..) => "\"\"".to_owned(),
    }
}

fn inline(dict: &Dict) -> String {
    let entries: Vec<String> = dict
        .iter()
        .map(|(key, entry)| format!("{} = {}", name(key), of_key(key, entry)))
        .collect();
    if entries.is_empty() {
        "{}".to_owned()
    } else {
        format!("{{ {} }}", entries.join(", "))
    }
}

fn name(key: &str) -> String {
    let bare = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    if bare {
        key.to_owned()
    } else {
        format!("{key:?}")
    }
}

/// Returns one line for each key in force, with its value and the layer it came from.
///
/// # Errors
///
/// Returns an error when the layers cannot be merged.
pub fn lines(layers: &Figment) -> Result<Vec<String>, SettingsError> {
    let mut lines = vec![];
    for (key, found) in layers
        .extract::<Dict>()
        .map_err(|e| SettingsError::from(&e))?
    {
        match found {
            // Each key of a table gets a line, because the keys may come from different layers.
            Value::Dict(_, dict) if !dict.is_empty() => {
                lines.extend(dict.iter().map(|(inner, found)| {
                    line(layers, &format!("{}.{}", name(&key), name(inner)), found)
                }));
            }
            found => lines.push(line(layers, &name(&key), &found)),
        }
    }
    Ok(lines)
}

fn line(layers: &Figment, key: &str, found: &Value) -> String {
    let shown = of_key(key, found);
    format!("{key} = {shown}  # {}", origin::of_key(layers, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden() {
        for (key, written, shown) in [
            (
                "store",
                "postgresql://u:geheim@h/db?x=1",
                "postgresql://h/db?…",
            ),
            ("store", "postgresql://u:ge/h@eim@h/db", "postgresql://h/db"),
            ("store", "redis://u:1/geheim@h/0", "redis://h/0"),
            ("store", "sled:./data", "sled:./data"),
            (
                "store",
                "{file:/run/secrets/url}",
                "{file:/run/secrets/url}",
            ),
            ("s3.secret_access_key", "geheim", "***"),
            ("s3.secret_access_key", "{env:KEY}", "{env:KEY}"),
            (
                "public_vcs_location",
                "git=https://u:geheim@h/,bzr=https://v:w@h/",
                "git=https://h/,bzr=https://h/",
            ),
            ("user_agent", "token=geheim", "token=***"),
            ("gcs.credentials", "default", "default"),
        ] {
            let value = Value::from(written);
            assert_eq!(of_key(key, &value), format!("{shown:?}"), "{key}");
        }
    }

    #[test]
    fn secrets_in_tables_of_lists_are_hidden() {
        let token = Dict::from([("secret".to_owned(), Value::from("geheim"))]);
        let list = Value::from(vec![Value::from(token)]);
        assert_eq!(of_key("admin.token", &list), "[{ secret = \"***\" }]");
    }

    #[test]
    fn values_of_locations_are_not_quoted_in_errors() {
        for key in [
            "store",
            "s3.secret_access_key",
            "apt_archive_location",
            "dep_server_url",
        ] {
            assert!(may_hold_secret(key), "{key}");
        }
        assert!(!may_hold_secret("port"));
    }
}
