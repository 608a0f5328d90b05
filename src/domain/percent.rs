//! Percent-encoding in parts of URLs.

/// Returns the bytes that a text stands for. A percent sign without two hex digits after it stands
/// for itself, as in Python's `unquote`.
///
/// ```
/// use janitor_runner::domain::percent::unescape;
///
/// assert_eq!(unescape("a%20b+c%2"), b"a b+c%2");
/// ```
pub fn unescape(escaped: &str) -> Vec<u8> {
    let bytes = escaped.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        let code = escaped
            .get(at + 1..at + 3)
            .filter(|hex| byte == b'%' && hex.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.unwrap_or(byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    out
}
