//! Shows the settings in force, without secrets.

use super::{error::SettingsError, origin};
use figment::{
    Figment,
    value::{Dict, Value},
};

/// Formats a value in TOML's notation; passwords in URLs are hidden.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{:?}", without_password(text)),
        Value::Char(_, c) => format!("{:?}", c.to_string()),
        Value::Bool(_, bool) => bool.to_string(),
        Value::Num(_, number) => number
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| number.to_u128().map(|n| n.to_string()))
            .or_else(|| number.to_f64().map(|n| n.to_string()))
            .unwrap_or_default(),
        Value::Empty(..) => "\"\"".to_owned(),
        Value::Array(_, list) => format!(
            "[{}]",
            list.iter().map(self::value).collect::<Vec<_>>().join(", ")
        ),
        Value::Dict(_, dict) => inline(dict),
    }
}

/// Formats the value of a key, unless it is a secret or the hash of one.
fn shown(key: &str, found: &Value) -> String {
    if key.contains("secret") {
        "\"***\"".to_owned()
    } else {
        value(found)
    }
}

fn inline(dict: &Dict) -> String {
    let entries: Vec<String> = dict
        .iter()
        .map(|(key, entry)| format!("{} = {}", name(key), shown(key, entry)))
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

fn without_password(text: &str) -> String {
    let Ok(mut url) = url::Url::parse(text) else {
        return text.to_owned();
    };
    if url.password().is_none() {
        return text.to_owned();
    }
    match url.set_password(Some("***")) {
        Ok(()) => url.to_string(),
        Err(()) => "***".to_owned(),
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
    let shown = shown(key, found);
    format!("{key} = {shown}  # {}", origin::of_key(layers, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_hidden() {
        assert_eq!(
            without_password("postgresql://u:secret@h/db"),
            "postgresql://u:***@h/db"
        );
        assert_eq!(without_password("sled:./data"), "sled:./data");
    }
}
