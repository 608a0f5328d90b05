//! The fields of a report: each is read as far as it can be understood, and the rest is noted.

use super::reported_time;
use crate::domain::{Invalid, time::Time};
use serde_json::{Map, Value};

/// The maximum length of a name, in characters.
pub(super) const MAX_NAME: usize = 200;
/// The maximum length of a revision, in characters. A longer one is not cut, which would make it
/// another revision.
const MAX_REVISION: usize = 1000;
/// The maximum length of a URL, in characters.
const MAX_URL: usize = 4096;
/// The maximum length of a description or context, in bytes.
pub(super) const MAX_TEXT: usize = 64 << 10;
/// The maximum length of JSON that a codemod reports, in bytes.
pub(super) const MAX_JSON: usize = 1 << 20;
/// The maximum number of notes about one report.
const MAX_NOTES: usize = 50;
/// What is appended to text that was cut.
const CUT_MARK: &str = "… [cut]";

/// Cuts text to at most `max` bytes, with a mark at its end.
pub(super) fn cut_bytes(text: &str, max: usize) -> Option<String> {
    (text.len() > max).then(|| {
        let end = text.floor_char_boundary(max.saturating_sub(CUT_MARK.len()));
        format!("{}{CUT_MARK}", &text[..end])
    })
}

/// Cuts text to at most `max` characters, with a mark at its end.
fn cut_chars(text: &str, max: usize) -> Option<String> {
    text.char_indices().nth(max).map(|_| {
        let kept = max.saturating_sub(CUT_MARK.chars().count());
        text.chars().take(kept).chain(CUT_MARK.chars()).collect()
    })
}

/// The fields of a report while it is read, with what was noticed so far.
pub(super) struct Fields<'a> {
    members: &'a Map<String, Value>,
    /// The rules that the report breaks so that it cannot be trusted.
    pub(super) problems: Vec<Invalid>,
    /// What was not understood, or changed.
    pub(super) notes: Vec<Invalid>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(members: &'a Map<String, Value>) -> Self {
        Self {
            members,
            problems: vec![],
            notes: vec![],
        }
    }

    pub(super) fn value(&self, field: &str) -> Option<&'a Value> {
        self.members.get(field).filter(|value| !value.is_null())
    }

    /// Returns whether the field is there and null.
    pub(super) fn is_null(&self, field: &str) -> bool {
        self.members.get(field).is_some_and(Value::is_null)
    }

    pub(super) fn fail(&mut self, field: &str, reason: impl Into<String>) {
        self.problems.push(Invalid::new(field, reason));
    }

    pub(super) fn note(&mut self, field: &str, reason: impl Into<String>) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(Invalid::new(field, reason));
        }
    }

    /// Notes that a value is not what it should be.
    pub(super) fn note_value(&mut self, field: &str, value: &Value, wanted: &str) {
        let shown: String = value.to_string().chars().take(60).collect();
        self.note(field, format!("{shown} is not {wanted}"));
    }

    /// Reads text of any kind; other JSON is kept as its compact text.
    pub(super) fn free_text(&mut self, field: &str) -> Option<String> {
        let text = match self.value(field)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some(match cut_bytes(&text, MAX_TEXT) {
            Some(cut) => {
                self.note(
                    field,
                    format!("is longer than {MAX_TEXT} bytes, and was cut"),
                );
                cut
            }
            None => text,
        })
    }

    /// Reads a short text, which may also be written as a number.
    fn scalar(&mut self, field: &str) -> Option<String> {
        let value = self.value(field)?;
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            other => {
                self.note_value(field, other, "text");
                None
            }
        }
    }

    /// Reads a name; one that is too long is cut.
    pub(super) fn name(&mut self, field: &str) -> Option<String> {
        let name = self.scalar(field)?;
        Some(self.bounded_name(field, name, MAX_NAME))
    }

    pub(super) fn bounded_name(&mut self, field: &str, name: String, max: usize) -> String {
        match cut_chars(&name, max) {
            Some(cut) => {
                self.note(
                    field,
                    format!("is longer than {max} characters, and was cut"),
                );
                cut
            }
            None => name,
        }
    }

    /// Reads a URL or path. A cut one would lead elsewhere, so it is left out when it is too long.
    pub(super) fn location(&mut self, field: &str) -> Option<String> {
        let text = self.scalar(field)?;
        if text.chars().nth(MAX_URL).is_some() {
            self.note(field, format!("is longer than {MAX_URL} characters"));
            return None;
        }
        Some(text)
    }

    /// Returns a revision; without a valid one the result cannot be trusted.
    pub(super) fn checked_revision(&mut self, field: &str, value: &Value) -> Option<String> {
        let reason = match value {
            Value::Null => return None,
            Value::String(text) if text.chars().nth(MAX_REVISION).is_none() => {
                return Some(text.clone());
            }
            Value::String(_) => format!("is longer than {MAX_REVISION} characters"),
            _ => "is not text".to_owned(),
        };
        self.fail(field, reason);
        None
    }

    pub(super) fn revision(&mut self, field: &str) -> Option<String> {
        let value = self.value(field)?;
        self.checked_revision(field, value)
    }

    pub(super) fn time(&mut self, field: &str) -> Option<Time> {
        let value = self.value(field)?;
        let time = reported_time::parse(value);
        if time.is_none() {
            self.note_value(field, value, "a time that is understood");
        }
        time
    }

    /// Reads a whole number as Python's `int` makes one; zero is none.
    pub(super) fn number(&mut self, field: &str) -> Option<i32> {
        let value = self.value(field)?;
        let number = match value {
            Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
            Value::Number(number) => number.as_f64(),
            Value::String(text) if text.trim().is_empty() => return None,
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        let whole = number
            .map(f64::trunc)
            .filter(|number| (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(number));
        let Some(whole) = whole else {
            self.note_value(field, value, "a whole number of 32 bits");
            return None;
        };
        #[expect(clippy::cast_possible_truncation)] // It is in the range that was just compared.
        Some(whole as i32).filter(|number| *number != 0)
    }

    pub(super) fn flag(&mut self, field: &str) -> Option<bool> {
        let value = self.value(field)?;
        let flag = match value {
            Value::Bool(flag) => Some(*flag),
            Value::Number(number) => number.as_f64().map(|number| number != 0.0),
            Value::String(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "yes" | "1" | "on" => Some(true),
                "false" | "no" | "0" | "off" | "" => Some(false),
                _ => None,
            },
            _ => None,
        };
        if flag.is_none() {
            self.note_value(field, value, "true or false");
        }
        flag
    }

    /// Reads JSON of any form; what is too long is replaced by a note.
    pub(super) fn json(&mut self, field: &str) -> Option<Value> {
        let value = self.value(field)?;
        Some(self.bounded_json(field, value))
    }

    pub(super) fn bounded_json(&mut self, field: &str, value: &Value) -> Value {
        let length = value.to_string().len();
        if length <= MAX_JSON {
            return value.clone();
        }
        let reason = format!("is {length} bytes long, more than {MAX_JSON}, and was left out");
        self.note(field, &*reason);
        serde_json::json!({ "note": format!("{field} {reason}") })
    }

    /// Reads a stage: text, or a list of its parts.
    pub(super) fn stage(&mut self) -> Option<String> {
        let value = self.value("stage")?;
        let part = |part: &Value| match part {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        };
        let parts: Option<Vec<String>> = match value {
            Value::Array(parts) => parts.iter().map(part).collect(),
            single => part(single).map(|single| vec![single]),
        };
        let Some(parts) = parts else {
            self.note_value("stage", value, "text or a list of text");
            return None;
        };
        Some(self.bounded_name("stage", parts.join("/"), MAX_NAME))
    }
}
