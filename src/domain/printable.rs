//! Control characters in text that is about to be shown: a terminal would obey them, and a line of
//! a log could pretend to be several.

use std::borrow::Cow;

/// Returns whether a terminal, or a viewer of logs, may act on a character rather than show it:
/// C0, DEL, C1, separators of lines, and marks that change the direction of text.
pub fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
        )
}

fn escaped(text: &str, is_kept: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_unsafe = |c: char| is_control(c) && !is_kept(c);
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            c if !is_unsafe(c) => out.push(c),
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            c => out.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(out)
}

/// Escapes all control characters, as Rust's literals do: the text stays in one line.
///
/// ```
/// use janitor_runner::domain::printable::printable;
///
/// assert_eq!(printable("a\x1b[31m\nb"), "a\\u{1b}[31m\\nb");
/// ```
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Escapes the control characters of a text of several lines: line feeds and tabs stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// Returns the four hexadecimal digits of a number below 65,536.
fn hex_digits(number: u32) -> impl Iterator<Item = char> {
    [12, 8, 4, 0]
        .into_iter()
        .filter_map(move |shift| char::from_digit((number >> shift) & 0xf, 16))
}

/// Escapes in JSON what JSON does not escape itself, but a terminal would obey.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    let is_unsafe = |c: char| is_control(c) && !matches!(c, '\n' | '\t' | '\r');
    if !json.contains(is_unsafe) {
        return Cow::Borrowed(json);
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_unsafe(c) {
            // All of them lie below U+10000, and outside of strings JSON has none of them.
            out += "\\u";
            out.extend(hex_digits(u32::from(c)));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Escapes the control characters of a text that arrives in pieces, whose bytes may be cut anywhere.
#[derive(Debug, Default)]
pub struct PrintableStream {
    /// The start of a character whose other bytes have not arrived.
    pending: Vec<u8>,
}

impl PrintableStream {
    /// Takes the next piece; returns what can be shown of it.
    pub fn push(&mut self, piece: &[u8]) -> String {
        self.pending.extend_from_slice(piece);
        let mut out = String::new();
        let mut bytes = self.pending.as_slice();
        loop {
            match std::str::from_utf8(bytes) {
                Ok(text) => {
                    out += &printable_lines(text);
                    bytes = &[];
                    break;
                }
                Err(error) => {
                    let (valid, rest) = bytes.split_at(error.valid_up_to());
                    out += &printable_lines(std::str::from_utf8(valid).unwrap_or_default());
                    let Some(length) = error.error_len() else {
                        bytes = rest;
                        break;
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    bytes = rest.get(length..).unwrap_or_default();
                }
            }
        }
        self.pending = bytes.to_vec();
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_are_escaped() {
        for (text, shown) in [
            ("plain ä…", "plain ä…"),
            ("\x1b]0;title\x07", "\\u{1b}]0;title\\u{7}"),
            ("\u{9b}31m\u{7f}", "\\u{9b}31m\\u{7f}"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}"),
            ("a\r\nb\tc", "a\\r\\nb\\tc"),
        ] {
            assert_eq!(printable(text), shown);
        }
        assert_eq!(printable_lines("a\nb\tc\rd"), "a\nb\tc\\rd");
    }

    #[test]
    fn json_keeps_its_meaning() {
        let value = serde_json::json!({ "a": "\u{9b}31m\u{202e}\x1b\n" });
        let shown = printable_json(&value.to_string()).into_owned();
        assert!(!shown.contains(is_control), "{shown}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            value
        );
    }

    proptest! {
        #[test]
        fn pieces_show_the_same_as_the_whole(
            text in "(\\PC|[\\x00-\\x1f\\x7f-\\u{9f}]){0,30}", cut in 0_usize..60
        ) {
            let bytes = text.as_bytes();
            let (one, other) = bytes.split_at(cut.min(bytes.len()));
            let mut stream = PrintableStream::default();
            let shown = stream.push(one) + &stream.push(other);
            prop_assert_eq!(shown, printable_lines(&text));
        }

        #[test]
        fn no_bytes_get_through(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let shown = PrintableStream::default().push(&bytes);
            prop_assert!(!shown.contains(|c| is_control(c) && c != '\n' && c != '\t'));
        }
    }
}
