//! The JSON of a report, which is parsed only if it is small enough in memory too.

use super::{fields::MAX_JSON, repair::repaired};
use serde_json::Value;

/// The maximum number of values in a report, as far as it is parsed: each takes some hundred bytes
/// of memory, also if it is written with two.
const MAX_VALUES: usize = 200_000;

/// Parses JSON, and returns whether it had to be repaired before.
pub(super) fn parsed(bytes: &[u8]) -> Result<(Value, bool), String> {
    if count_values(bytes) > MAX_VALUES {
        return Err(format!("has more than {MAX_VALUES} values"));
    }
    let (text, changed) = repaired(bytes);
    let value = serde_json::from_slice(&text).map_err(|error| format!("is not JSON: {error}"))?;
    Ok((value, changed))
}

/// Counts the values in JSON, of which each but the first follows a bracket or comma.
fn count_values(bytes: &[u8]) -> usize {
    let (mut count, mut in_text, mut escaped) = (1, false, false);
    for byte in bytes {
        match byte {
            b'"' if !escaped => in_text = !in_text,
            b'[' | b'{' | b',' if !in_text => count += 1,
            _ => {}
        }
        escaped = in_text && *byte == b'\\' && !escaped;
    }
    count
}

/// Returns the start of what was received in place of a report, as far as it is text.
pub(super) fn start(bytes: &[u8]) -> Value {
    let start = bytes.get(..MAX_JSON).unwrap_or(bytes);
    Value::String(String::from_utf8_lossy(start).replace('\0', "\u{fffd}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_of_a_report_are_limited_and_commas_in_its_texts_are_not() {
        let text = ",[{\\\"".repeat(MAX_VALUES);
        let details = json!({ "details": text }).to_string();
        assert!(!parsed(details.as_bytes()).unwrap().1);
        // An empty list or object counts as if it had a value.
        assert_eq!(count_values(br#"{"a": [1, 2, "\",["], "b": {}}"#), 7);
        let many = format!(
            "{{\"code\": \"x\", \"details\": [{}0]}}",
            "[],".repeat(MAX_VALUES)
        );
        let reason = parsed(many.as_bytes()).unwrap_err();
        assert_eq!(reason, format!("has more than {MAX_VALUES} values"));
        assert!(
            start(many.as_bytes())
                .as_str()
                .unwrap()
                .starts_with("{\"code\"")
        );
    }
}
