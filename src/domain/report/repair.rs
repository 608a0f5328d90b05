//! Repairs JSON text as programs write it that do not keep to RFC 8259, and removes from it what no
//! store can keep.

use serde_json::Value;
use std::borrow::Cow;

/// The escape of the character that replaces others.
const REPLACEMENT: &[u8] = b"\\ufffd";

/// Returns JSON text that can be parsed and stored, and whether it differs from what was given.
///
/// Lone surrogates and NUL become U+FFFD, as do bytes that are not UTF-8. `NaN` and infinities,
/// which Python writes, and numbers beyond those of IEEE 754 become null, and control characters
/// within strings are escaped.
pub(super) fn repaired(bytes: &[u8]) -> (Cow<'_, [u8]>, bool) {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if serde_json::from_slice::<Value>(bytes).is_ok() && !has_nul(bytes) {
        return (Cow::Borrowed(bytes), false);
    }
    let text = String::from_utf8_lossy(bytes);
    let mut repair = Repair {
        rest: text.as_bytes(),
        out: Vec::with_capacity(text.len()),
    };
    repair.run();
    let changed = repair.out != bytes;
    (Cow::Owned(repair.out), changed)
}

/// Returns whether the text may have an escape of NUL, which is valid JSON.
fn has_nul(bytes: &[u8]) -> bool {
    bytes.windows(6).any(|window| window == b"\\u0000")
}

/// JSON text that is being repaired.
struct Repair<'a> {
    rest: &'a [u8],
    out: Vec<u8>,
}

impl Repair<'_> {
    fn run(&mut self) {
        let mut in_string = false;
        while let Some(byte) = self.rest.first().copied() {
            match byte {
                b'"' => {
                    in_string = !in_string;
                    self.copy(1);
                }
                b'\\' if in_string => self.escape(),
                0 if in_string => self.replace(1, REPLACEMENT),
                0..=0x1f if in_string => {
                    let escaped = format!("\\u{byte:04x}");
                    self.replace(1, escaped.as_bytes());
                }
                b'-' | b'0'..=b'9' | b'N' | b'I' if !in_string => self.number_or_name(),
                _ => self.copy(1),
            }
        }
    }

    fn copy(&mut self, length: usize) {
        let (taken, rest) = self.rest.split_at(length.min(self.rest.len()));
        self.out.extend_from_slice(taken);
        self.rest = rest;
    }

    fn replace(&mut self, length: usize, by: &[u8]) {
        self.out.extend_from_slice(by);
        self.rest = self.rest.get(length..).unwrap_or_default();
    }

    fn number_or_name(&mut self) {
        let name = [&b"-Infinity"[..], b"Infinity", b"NaN"]
            .into_iter()
            .find(|name| self.rest.starts_with(name));
        if let Some(name) = name {
            return self.replace(name.len(), b"null");
        }
        let in_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
        let end = self.rest.iter().position(|byte| !in_number(byte));
        let number = &self.rest[..end.unwrap_or(self.rest.len())];
        let value = std::str::from_utf8(number).ok().map(str::parse::<f64>);
        match value {
            Some(Ok(value)) if value.is_infinite() => self.replace(number.len(), b"null"),
            // At least one byte: a name may begin as those above do.
            _ => self.copy(number.len().max(1)),
        }
    }

    /// Returns the code unit of a `\uXXXX` that begins at this offset.
    fn unit(&self, offset: usize) -> Option<u16> {
        let digits = self
            .rest
            .get(offset..offset + 6)?
            .strip_prefix(b"\\u")
            .filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
        u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    fn escape(&mut self) {
        match self.unit(0) {
            Some(0 | 0xdc00..=0xdfff) => self.replace(6, REPLACEMENT),
            Some(0xd800..=0xdbff) => match self.unit(6) {
                Some(0xdc00..=0xdfff) => self.copy(12),
                _ => self.replace(6, REPLACEMENT),
            },
            Some(_) => self.copy(6),
            None => self.copy(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parsed(text: &[u8]) -> Value {
        serde_json::from_slice(&repaired(text).0).unwrap()
    }

    #[test]
    fn what_no_store_keeps_is_replaced() {
        assert_eq!(parsed(br#"["a\ud800b"]"#), json!(["a\u{fffd}b"]));
        assert_eq!(parsed(br#"["\udc00\ud83d\ude00"]"#), json!(["\u{fffd}😀"]));
        assert_eq!(parsed(br#"["a\u0000b"]"#), json!(["a\u{fffd}b"]));
        assert_eq!(parsed(br#"["\\ud800"]"#), json!(["\\ud800"]));
        assert_eq!(
            parsed(b"[\"\xff\", \"a\nb\0\"]"),
            json!(["\u{fffd}", "a\nb\u{fffd}"])
        );
        assert_eq!(
            parsed(br#"[NaN, -Infinity, Infinity, -1, "NaN"]"#),
            json!([null, null, null, -1, "NaN"])
        );
        assert_eq!(
            parsed(br#"[1e400, -1E+999, 1e-400, 12.5e3, "1e400"]"#),
            json!([null, null, 0.0, 12500.0, "1e400"])
        );
        assert_eq!(parsed(b"\xef\xbb\xbf{}"), json!({}));
    }

    proptest! {
        #[test]
        fn valid_text_keeps_its_meaning(text in "\\PC{0,40}") {
            let value = json!({ &text: [text] });
            let written = value.to_string();
            let (repaired, changed) = repaired(written.as_bytes());
            prop_assert!(!changed);
            prop_assert_eq!(serde_json::from_slice::<Value>(&repaired).unwrap(), value);
        }

        #[test]
        fn repairing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = repaired(&bytes);
        }
    }
}
