//! The result that a script writes to `SVP_RESULT`. Whatever can be understood of it is taken.

use super::regular_file;
use crate::domain::redact::redact_result;
use serde_json::{Map, Value, json};
use std::{
    io::{ErrorKind, Read},
    path::Path,
};

/// The maximum size of the file.
const MAX_SIZE: u64 = 16 << 20;
/// The maximum size of one field, in bytes; longer descriptions are cut.
const MAX_FIELD_SIZE: usize = 64 << 10;
const MAX_CODE_LENGTH: usize = 100;
const MAX_STAGE_LENGTH: usize = 10;
const MAX_TAGS: usize = 1000;
/// Follows a text that was cut.
const CUT_MARK: &str = "\n[cut]";
/// The fields that are kept of a result that is too large.
const FIELDS: [&str; 9] = [
    "code",
    "description",
    "value",
    "context",
    "tags",
    "details",
    "target-branch-url",
    "transient",
    "stage",
];
/// Codes that say something about the worker, which a script cannot know.
const RESERVED_CODES: [&str; 2] = ["run-disappeared", "killed"];

/// The result of a script.
#[derive(Debug, Clone, Default)]
pub(super) struct ScriptResult {
    /// What the script wrote; null when it wrote nothing.
    raw: Value,
}

/// Returns a text of at most [`MAX_FIELD_SIZE`] bytes, with a mark if it was cut.
pub(super) fn cut(text: &str) -> String {
    if text.len() <= MAX_FIELD_SIZE {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(MAX_FIELD_SIZE - CUT_MARK.len());
    format!("{}{CUT_MARK}", text.get(..end).unwrap_or_default())
}

/// Returns JSON as other languages write it, as JSON: without a byte order mark, lone surrogates,
/// and numbers that are none.
fn repaired(text: &str) -> String {
    let (mut out, mut rest, mut in_text) = (String::with_capacity(text.len()), text, false);
    while let Some(first) = rest.chars().next() {
        let (taken, replacement) = match first {
            '"' => {
                in_text = !in_text;
                (1, None)
            }
            '\\' if in_text => escape(rest),
            '-' | 'N' | 'I' if !in_text => no_number(rest),
            other => (other.len_utf8(), None),
        };
        let (consumed, remaining) = rest.split_at_checked(taken).unwrap_or((rest, ""));
        out.push_str(replacement.unwrap_or(consumed));
        rest = remaining;
    }
    out
}

/// Returns the length of a number that is none, and what to put in its place.
fn no_number(text: &str) -> (usize, Option<&'static str>) {
    ["NaN", "Infinity", "-Infinity"]
        .iter()
        .find(|name| text.starts_with(**name))
        .map_or((1, None), |name| (name.len(), Some("null")))
}

/// Returns the length of an escape sequence, and what to put in its place if it is half of a pair.
fn escape(text: &str) -> (usize, Option<&'static str>) {
    let unit = |text: &str| {
        let digits = text.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    let second = text.get(6..).and_then(unit);
    match unit(text) {
        Some(0xd800..0xdc00) if matches!(second, Some(0xdc00..0xe000)) => (12, None),
        Some(0xd800..0xe000) => (6, Some("\\ufffd")),
        Some(_) => (6, None),
        None => (1 + text.chars().nth(1).map_or(0, char::len_utf8), None),
    }
}

/// Removes what stores refuse, and passwords.
fn clean(value: Value) -> Value {
    let text = |text: String| redact_result(&text).replace('\0', "");
    match value {
        Value::String(string) => text(string).into(),
        Value::Array(list) => list.into_iter().map(clean).collect(),
        Value::Object(map) => map
            .into_iter()
            .map(|(key, value)| (text(key), clean(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other,
    }
}

fn is_large(value: &Value) -> bool {
    value.to_string().len() > MAX_FIELD_SIZE
}

/// Keeps the fields that are known and not too large, with a cut description.
fn shorten(value: &Value) -> Value {
    let mut kept = Map::new();
    for name in FIELDS {
        match value.get(name) {
            Some(Value::String(text)) => kept.insert(name.into(), cut(text).into()),
            Some(other) if !is_large(other) => kept.insert(name.into(), other.clone()),
            Some(_) | None => None,
        };
    }
    kept.into()
}

fn is_code(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:+".contains(&byte);
    !text.is_empty() && text.len() <= MAX_CODE_LENGTH && text.bytes().all(is_allowed)
}

impl ScriptResult {
    /// Parses the bytes that a script wrote.
    fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_start_matches('\u{feff}');
        let parsed = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(_) => serde_json::from_str(&repaired(text))?,
        };
        let raw = clean(parsed);
        Ok(Self {
            raw: if is_large(&raw) { shorten(&raw) } else { raw },
        })
    }

    /// Reads the file of a script's result; null when there is none.
    ///
    /// # Errors
    ///
    /// Returns the reason why it is no result.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let file = match regular_file::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(format!("cannot be read: {error}")),
        };
        let mut bytes = vec![];
        file.take(MAX_SIZE + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| format!("cannot be read: {error}"))?;
        if bytes.len() as u64 > MAX_SIZE {
            return Err(format!("is larger than {MAX_SIZE} bytes"));
        }
        Self::parse(&bytes).map_err(|error| format!("is not JSON: {error}"))
    }

    fn text(&self, field: &str) -> Option<String> {
        match self.raw.get(field)? {
            Value::Null => None,
            Value::String(text) => Some(cut(text)),
            other => Some(cut(&other.to_string())),
        }
    }

    /// Returns the script's own code for a failure. A code that says that the worker is at fault is
    /// changed, since it would count against the worker.
    pub(super) fn failure_code(&self) -> Option<String> {
        let code = self.raw.get("code")?.as_str()?;
        if code == "success" || !is_code(code) {
            return None;
        }
        let is_reserved = code.starts_with("worker-") || RESERVED_CODES.contains(&code);
        Some(match code {
            code if is_reserved => format!("codemod-{code}"),
            // Only a worker knows whether a run was resumed.
            "nothing-new-to-do" => "nothing-to-do".to_owned(),
            code => code.to_owned(),
        })
    }

    /// Returns what was done, for people; none if that is empty.
    pub(super) fn description(&self) -> Option<String> {
        self.text("description")
            .filter(|description| !description.trim().is_empty())
    }

    /// Returns whether the failure may be cured by a repeat.
    pub(super) fn is_transient(&self) -> bool {
        match self.raw.get("transient") {
            Some(Value::Bool(transient)) => *transient,
            Some(Value::String(text)) => ["true", "yes", "1"].contains(&text.as_str()),
            Some(Value::Number(number)) => number.as_f64() != Some(0.0),
            _ => false,
        }
    }

    /// Returns the step of the script that failed, from the outside in.
    pub(super) fn stage(&self) -> Vec<String> {
        let parts = match self.raw.get("stage") {
            Some(Value::String(stage)) => vec![stage.clone()],
            Some(Value::Array(parts)) => {
                let texts = parts.iter().filter_map(Value::as_str);
                texts.map(str::to_owned).collect()
            }
            _ => vec![],
        };
        let short = |part: String| part.chars().take(MAX_CODE_LENGTH).collect();
        let parts = parts.into_iter().filter(|part| !part.is_empty());
        parts.map(short).take(MAX_STAGE_LENGTH).collect()
    }

    fn value(&self) -> Option<i64> {
        let number = match self.raw.get("value")? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        number
            .filter(|number| number.is_finite())
            .map(|number| {
                number
                    .trunc()
                    .clamp(f64::from(i32::MIN), f64::from(i32::MAX))
            })
            .and_then(|number| format!("{number:.0}").parse().ok())
    }

    /// Returns the tags; those without a revision are of the run's own.
    fn tags(&self, revision: Option<&str>) -> Value {
        let tag = |value: &Value| match value {
            Value::String(name) => revision.map(|revision| json!([name, revision])),
            Value::Array(pair) => match pair.as_slice() {
                [Value::String(name), Value::String(revision)] => Some(json!([name, revision])),
                [Value::String(name), ..] => revision.map(|revision| json!([name, revision])),
                _ => None,
            },
            _ => None,
        };
        match self.raw.get("tags") {
            Some(Value::Array(tags)) => tags.iter().filter_map(tag).take(MAX_TAGS).collect(),
            _ => Value::Null,
        }
    }

    /// Returns the fields of the report that the script sets.
    pub(super) fn report_fields(&self, revision: Option<&str>) -> [(&'static str, Value); 7] {
        [
            ("codemod", self.raw.clone()),
            ("description", json!(self.description())),
            ("value", json!(self.value())),
            ("context", json!(self.text("context"))),
            ("tags", self.tags(revision)),
            (
                "details",
                self.raw.get("details").cloned().unwrap_or_default(),
            ),
            ("target_branch_url", json!(self.text("target-branch-url"))),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(text: &str) -> ScriptResult {
        ScriptResult::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn numbers_are_taken_as_python_takes_them() {
        for (value, number) in [
            ("7.9", Some(7)),
            ("\"5\"", Some(5)),
            ("\" -3.7 \"", Some(-3)),
            ("1e300", Some(2_147_483_647)),
            ("NaN", None),
            ("-Infinity", None),
            ("\"inf\"", None),
            ("[]", None),
            ("true", None),
        ] {
            let result = of(&format!("{{\"value\": {value}}}"));
            assert_eq!(result.value(), number, "{value}");
        }
    }

    #[test]
    fn tags_are_names_or_pairs() {
        let result = of(r#"{"tags": ["a", ["b", "r2"], ["c", null], ["d"], 5, [], [1, 2]]}"#);
        assert_eq!(
            result.tags(Some("r1")),
            json!([["a", "r1"], ["b", "r2"], ["c", "r1"], ["d", "r1"]])
        );
        assert_eq!(result.tags(None), json!([["b", "r2"]]));
    }

    #[test]
    fn half_of_a_pair_is_replaced_and_a_pair_is_not() {
        let result = of(r#"{"description": "\ud83d\ude00 \ud800\\ud800 \udc00 NaN \" Infinity"}"#);
        assert_eq!(
            result.description().unwrap(),
            "😀 \u{fffd}\\ud800 \u{fffd} NaN \" Infinity"
        );
    }

    #[test]
    fn large_results_keep_their_short_fields() {
        let long = "ä".repeat(50_000);
        let result = of(&json!({
            "description": long, "value": 3, "details": [long], "other": long
        })
        .to_string());
        let description = result.description().unwrap();
        assert!(description.ends_with(CUT_MARK));
        assert!(description.len() <= MAX_FIELD_SIZE);
        assert_eq!(result.value(), Some(3));
        assert_eq!(result.raw.get("details"), None);
        assert_eq!(result.raw.get("other"), None);
    }

    #[test]
    fn json_that_is_no_object_says_nothing() {
        for text in ["[1]", "5", "\"text\"", "null"] {
            let result = of(text);
            assert_eq!(result.failure_code(), None);
            assert_eq!(result.description(), None);
            assert!(!result.is_transient());
        }
    }

    proptest! {
        #[test]
        fn repair_changes_no_valid_json(value in "\\PC{0,40}") {
            let text = json!({ "a": value, "b": [1.5, -2, null] }).to_string();
            prop_assert_eq!(repaired(&text), text);
        }

        #[test]
        fn no_bytes_make_it_panic(text in "(\\\\u|d8|[a-f0-9{}\":\\\\]|\\PC){0,40}") {
            let _ = repaired(&text);
            let _ = ScriptResult::parse(text.as_bytes());
        }
    }
}
