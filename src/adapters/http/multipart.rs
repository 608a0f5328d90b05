//! Multipart bodies as clients write them, read part by part.
//!
//! Any `multipart/…` is accepted, and file names in each encoding that clients use. Whatever the
//! body, no more than a part's headers and one chunk of it are in memory.

use axum::{
    body::BodyDataStream,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

/// The maximum size of the headers of a part, and of what stands before the first part, in bytes.
const MAX_HEADERS: usize = 64 << 10;
/// How many spaces may follow a boundary.
const MAX_PADDING: usize = 100;
/// The end of the headers of a part. Those of a part without headers end like that too: with the
/// line end of the boundary and their own.
const HEADERS_END: &[u8] = b"\r\n\r\n";
/// The maximum length of a boundary; RFC 2046 allows 70 characters.
const MAX_BOUNDARY: usize = 200;
const CRLF: &[u8] = b"\r\n";

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum MultipartError {
    /// The content type is not that of a multipart body.
    #[error("the content type is not multipart with a boundary")]
    ContentType,
    /// The body ends before its last boundary.
    #[error("it ends before the last boundary")]
    Incomplete,
    /// A part has more headers than are read.
    #[error("the headers of a part are larger than {MAX_HEADERS} bytes")]
    Headers,
    /// What stands between two parts is neither a line end nor the end of the body.
    #[error("a boundary is followed by other text")]
    Boundary,
    /// The body is larger than what is accepted.
    #[error("it is too large")]
    TooLarge,
    /// The connection failed.
    #[error("{0}")]
    Connection(axum::Error),
}

/// The headers of a part, as far as they matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PartHeaders {
    /// The name of the file.
    pub(super) file_name: Option<String>,
    /// Whether the part is a multipart body itself.
    pub(super) is_multipart: bool,
}

/// What stands after a boundary.
enum Found {
    /// A part with these headers.
    Part(PartHeaders),
    /// The end of the body.
    End,
    /// That has not arrived yet.
    Incomplete,
}

/// The parts of a body.
pub(super) struct Parts<'a> {
    body: &'a mut BodyDataStream,
    /// Bytes that have arrived and were not returned yet.
    buffer: BytesMut,
    /// What stands before each part: a line end, two dashes and the boundary.
    delimiter: Vec<u8>,
    /// How much of the headers of the next part has arrived and does not have their end. A client
    /// may send each of its bytes alone.
    searched: usize,
    /// Whether the content of a part is being read.
    in_part: bool,
    /// The number of bytes that have arrived.
    received: u64,
    /// The number of bytes that are accepted.
    limit: u64,
}

impl<'a> Parts<'a> {
    /// Starts to read a body of at most `limit` bytes, all that surrounds the parts included.
    ///
    /// # Errors
    ///
    /// [`MultipartError::ContentType`] when it is not multipart.
    pub(super) fn new(
        headers: &HeaderMap,
        body: &'a mut BodyDataStream,
        limit: u64,
    ) -> Result<Self, MultipartError> {
        let content_type = headers
            .get(header::CONTENT_TYPE)
            .map_or(&b""[..], |value| value.as_bytes());
        let (kind, parameters) = parameters(content_type);
        let boundary = parameters
            .into_iter()
            .find(|(name, _)| name == "boundary")
            .map(|(_, value)| value)
            .filter(|boundary| !boundary.is_empty() && boundary.len() <= MAX_BOUNDARY)
            .filter(|_| kind.starts_with("multipart/"))
            .ok_or(MultipartError::ContentType)?;
        Ok(Self {
            body,
            // The first boundary may begin the body, without a line end before it.
            buffer: BytesMut::from(CRLF),
            delimiter: [b"\r\n--", boundary.as_slice()].concat(),
            searched: 0,
            in_part: false,
            received: 0,
            limit,
        })
    }

    async fn fill(&mut self) -> Result<(), MultipartError> {
        let chunk = self.body.next().await.ok_or(MultipartError::Incomplete)?;
        let chunk = chunk.map_err(MultipartError::Connection)?;
        self.received += chunk.len() as u64;
        if self.received > self.limit {
            return Err(MultipartError::TooLarge);
        }
        self.buffer.extend_from_slice(&chunk);
        Ok(())
    }

    /// Returns the headers of the next part once all of them have arrived; `None` after the last.
    /// The content of the part before must have been read.
    ///
    /// It can be called again after it was cancelled.
    ///
    /// # Errors
    ///
    /// [`MultipartError`] when the body is malformed or cut off.
    pub(super) async fn next(&mut self) -> Result<Option<PartHeaders>, MultipartError> {
        loop {
            match self.headers_in_buffer()? {
                Found::Part(headers) => return Ok(Some(headers)),
                Found::End => return Ok(None),
                Found::Incomplete => self.fill().await?,
            }
        }
    }

    /// Looks for the headers of a part in what has arrived.
    fn headers_in_buffer(&mut self) -> Result<Found, MultipartError> {
        let Some(start) = find(&self.buffer, &self.delimiter) else {
            // What stands before the first boundary means nothing.
            let kept = self.buffer.len().min(self.delimiter.len());
            let skipped = self.buffer.len() - kept;
            drop(self.buffer.split_to(skipped));
            return Ok(Found::Incomplete);
        };
        drop(self.buffer.split_to(start));
        let after = self.delimiter.len();
        let rest = self.buffer.get(after..).unwrap_or_default();
        if rest.starts_with(b"--") {
            return Ok(Found::End);
        }
        let padding = rest
            .iter()
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .take(MAX_PADDING)
            .count();
        let line_end = rest.get(padding..).unwrap_or_default();
        if line_end.len() >= 2 && !line_end.starts_with(CRLF) {
            return Err(MultipartError::Boundary);
        }
        let from = self.searched.saturating_sub(HEADERS_END.len());
        let found = line_end
            .get(from..)
            .and_then(|tail| find(tail, HEADERS_END));
        let Some(length) = found.map(|at| from + at) else {
            self.searched = line_end.len();
            return match rest.len() > MAX_HEADERS {
                true => Err(MultipartError::Headers),
                false => Ok(Found::Incomplete),
            };
        };
        let headers = part_headers(line_end.get(..length).unwrap_or_default());
        let taken = after + padding + length + HEADERS_END.len();
        drop(self.buffer.split_to(taken));
        self.searched = 0;
        self.in_part = true;
        Ok(Found::Part(headers))
    }

    /// Returns the next chunk of the content of a part; `None` at its end.
    ///
    /// It can be called again after it was cancelled.
    ///
    /// # Errors
    ///
    /// [`MultipartError`] when the body is cut off.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, MultipartError> {
        while self.in_part {
            let (length, ends) = match find(&self.buffer, &self.delimiter) {
                Some(start) => (start, true),
                // The end of the buffer may be the beginning of a delimiter.
                None => (
                    self.buffer.len().saturating_sub(self.delimiter.len()),
                    false,
                ),
            };
            self.in_part = !ends;
            if length > 0 {
                return Ok(Some(self.buffer.split_to(length).freeze()));
            }
            if !ends {
                self.fill().await?;
            }
        }
        Ok(None)
    }
}

/// Returns where `needle` begins.
fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut from = 0;
    while let Some(offset) = haystack.get(from..)?.iter().position(|byte| *byte == first) {
        let start = from + offset;
        if haystack[start..].starts_with(needle) {
            return Some(start);
        }
        from = start + 1;
    }
    None
}

fn part_headers(lines: &[u8]) -> PartHeaders {
    let mut headers = PartHeaders::default();
    // A line that begins with a space continues the one before.
    let mut unfolded: Vec<Vec<u8>> = vec![];
    for line in lines.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match unfolded.last_mut() {
            Some(last) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                last.extend_from_slice(line);
            }
            _ => unfolded.push(line.to_vec()),
        }
    }
    for line in &unfolded {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.trim_ascii().eq_ignore_ascii_case(b"content-type") {
            headers.is_multipart = parameters(value).0.starts_with("multipart/");
        } else if name
            .trim_ascii()
            .eq_ignore_ascii_case(b"content-disposition")
        {
            headers.file_name = file_name(value);
        }
    }
    headers
}

/// Returns the file name in a `Content-Disposition`: the extended form first, as RFC 6266 says.
fn file_name(disposition: &[u8]) -> Option<String> {
    let (_, parameters) = parameters(disposition);
    let named = |wanted: &str| parameters.iter().find(|(name, _)| name == wanted);
    if let Some((_, value)) = named("filename*") {
        return Some(extended(value));
    }
    named("filename").map(|(_, value)| decoded(value))
}

/// Decodes bytes as UTF-8, else as Latin-1.
fn decoded(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().map(|byte| char::from(*byte)).collect(),
    }
}

/// Decodes `charset'language'text` (RFC 8187), whose text is percent-encoded.
fn extended(value: &[u8]) -> String {
    let mut parts = value.splitn(3, |byte| *byte == b'\'');
    let text = match (parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(_), Some(text)) => text,
        _ => value,
    };
    let mut bytes = vec![];
    let mut rest = text;
    while let Some((mut byte, after)) = rest.split_first().map(|(first, after)| (*first, after)) {
        let encoded = after
            .get(..2)
            .filter(|digits| byte == b'%' && digits.iter().all(u8::is_ascii_hexdigit))
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        (byte, rest) = match encoded {
            Some(encoded) => (encoded, &after[2..]),
            None => (byte, after),
        };
        bytes.push(byte);
    }
    decoded(&bytes)
}

/// Returns the value of a header up to the first semicolon, in lower case, and its parameters by
/// their names in lower case. Values may be quoted.
fn parameters(value: &[u8]) -> (String, Vec<(String, Vec<u8>)>) {
    let end = value.iter().position(|byte| *byte == b';');
    let (kind, mut rest) = value.split_at(end.unwrap_or(value.len()));
    let mut found = vec![];
    while let [b';', after @ ..] = rest {
        let name_end = after.iter().position(|byte| matches!(byte, b'=' | b';'));
        let (name, after) = after.split_at(name_end.unwrap_or(after.len()));
        let name = decoded(name.trim_ascii()).to_ascii_lowercase();
        let [b'=', after @ ..] = after else {
            rest = after;
            continue;
        };
        let (value, after) = parameter_value(after.trim_ascii_start());
        found.push((name, value));
        let next = after.iter().position(|byte| *byte == b';');
        rest = next.map_or(&b""[..], |next| &after[next..]);
    }
    (decoded(kind.trim_ascii()).to_ascii_lowercase(), found)
}

/// Returns the value of a parameter, and what stands after it.
fn parameter_value(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let end = text.iter().position(|byte| *byte == b';');
        let (value, rest) = text.split_at(end.unwrap_or(text.len()));
        return (value.trim_ascii().to_vec(), rest);
    };
    let mut value = vec![];
    let mut rest = quoted;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after.first()) {
            (b'"', _) => break,
            // Other backslashes are those of paths, which some clients send unescaped.
            (b'\\', Some(escaped @ (b'"' | b'\\'))) => {
                value.push(*escaped);
                rest = &after[1..];
            }
            _ => value.push(*byte),
        }
    }
    (value, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use proptest::prelude::*;

    async fn parts(
        body: &[u8],
        chunk_size: usize,
    ) -> Result<Vec<(PartHeaders, Vec<u8>)>, MultipartError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            "content-type",
            "multipart/mixed; Boundary=\"b c\"".parse().unwrap(),
        );
        let chunks: Vec<_> = body
            .chunks(chunk_size)
            .map(|chunk| Ok::<_, std::io::Error>(Bytes::copy_from_slice(chunk)))
            .collect();
        let mut body = Body::from_stream(futures::stream::iter(chunks)).into_data_stream();
        let mut parts = Parts::new(&headers, &mut body, 100_000)?;
        let mut all = vec![];
        while let Some(headers) = parts.next().await? {
            let mut content = vec![];
            while let Some(chunk) = parts.chunk().await? {
                content.extend_from_slice(&chunk);
            }
            all.push((headers, content));
        }
        Ok(all)
    }

    const BODY: &[u8] =
        b"preamble\r\n--b c  \r\nContent-Disposition: form-data; filename=\"a\"\r\n\r\n\
        one\r\n--b\r\n\r\n--b c\r\n\r\nno headers\r\n--b c\r\nX: y\r\n\r\n\r\n--b c--\r\nepilogue";

    #[tokio::test]
    async fn parts_are_read_however_they_arrive() {
        for chunk_size in 1..BODY.len() {
            let parts = parts(BODY, chunk_size).await.unwrap();
            let contents: Vec<&[u8]> = parts.iter().map(|(_, content)| &content[..]).collect();
            assert_eq!(
                contents,
                [&b"one\r\n--b\r\n"[..], b"no headers", b""],
                "{chunk_size}"
            );
            assert_eq!(parts[0].0.file_name.as_deref(), Some("a"));
        }
    }

    #[tokio::test]
    async fn headers_that_arrive_byte_by_byte_are_searched_once() {
        let long = format!(
            "--b c\r\nX: {}\r\n\r\nx\r\n--b c--",
            "\r\r\n\r".repeat(MAX_HEADERS / 4 - 10)
        );
        let started = std::time::Instant::now();
        let found = parts(long.as_bytes(), 1).await.unwrap();
        assert_eq!(found[0].1, b"x");
        assert!(started.elapsed().as_secs() < 2, "{:?}", started.elapsed());
        let padded = format!("--b c{}\r\n\r\nx\r\n--b c--", " ".repeat(MAX_PADDING + 1));
        assert!(parts(padded.as_bytes(), 1).await.is_err());
    }

    #[tokio::test]
    async fn malformed_bodies_are_rejected() {
        let long = format!("--b c\r\nX: {}", "y".repeat(MAX_HEADERS));
        for (body, what) in [
            (&BODY[..BODY.len() - 16], "cut off"),
            (&b"--other\r\n\r\n"[..], "another boundary"),
            (b"--b cd\r\n\r\nx\r\n--b c--", "text after a boundary"),
            (long.as_bytes(), "long headers"),
            (b"", "empty"),
        ] {
            assert!(parts(body, 7).await.is_err(), "{what}");
        }
    }

    #[test]
    fn file_names_are_found_in_every_form() {
        for (disposition, expected) in [
            (
                &b"form-data; name=\"f\"; filename=\"a b.log\""[..],
                "a b.log",
            ),
            (b"form-data; FILENAME=a.log", "a.log"),
            (b"attachment;filename = a.log ; size=5", "a.log"),
            (b"attachment; filename*=UTF-8''%C3%A4%20b.log", "ä b.log"),
            (b"attachment; filename*=iso-8859-1'en'%E4.log", "ä.log"),
            (b"attachment; filename=\"x\"; filename*=utf-8''y", "y"),
            (b"attachment; filename=\"\xe4.log\"", "ä.log"),
            (b"attachment; filename=\"\xc3\xa4.log\"", "ä.log"),
            (b"attachment; filename=\"a\\\"b;c.log\"", "a\"b;c.log"),
            (b"attachment; filename=\"C:\\out\\x.log\"", "C:\\out\\x.log"),
            (b"attachment; x; filename=\"\"", ""),
        ] {
            let shown = String::from_utf8_lossy(disposition);
            assert_eq!(file_name(disposition).as_deref(), Some(expected), "{shown}");
        }
        assert_eq!(file_name(b"form-data; name=\"filename\""), None);
        assert_eq!(file_name(b""), None);
    }

    proptest! {
        #[test]
        fn header_parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = part_headers(&bytes);
            let _ = extended(&bytes);
        }

        #[test]
        fn any_bytes_are_read_in_bounded_space(
            pieces in proptest::collection::vec(
                prop_oneof![
                    Just(b"\r\n--b c".to_vec()),
                    Just(b"\r\n\r\n".to_vec()),
                    Just(b"--b c--".to_vec()),
                    Just(b"Content-Disposition: form-data; filename*=utf-8''%".to_vec()),
                    Just(b"Content-Type: multipart/mixed; boundary=".to_vec()),
                    proptest::collection::vec(any::<u8>(), 0..300),
                    (any::<u8>(), 0_usize..20_000).prop_map(|(byte, count)| vec![byte; count]),
                ],
                0..40,
            ),
            size in 1_usize..9000,
        ) {
            let body: Vec<u8> = pieces.concat().into_iter().take(90_000).collect();
            let started = std::time::Instant::now();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            if let Ok(parts) = runtime.block_on(parts(&body, size)) {
                let content: usize = parts.iter().map(|(_, content)| content.len()).sum();
                prop_assert!(content <= body.len());
                let name = |headers: &PartHeaders| headers.file_name.clone().unwrap_or_default();
                let names: usize = parts.iter().map(|(headers, _)| name(headers).len()).sum();
                prop_assert!(names <= 2 * body.len());
            }
            prop_assert!(started.elapsed().as_secs() < 5, "{:?}", started.elapsed());
        }

        #[test]
        fn body_parsing_never_panics(body in "(\r\n|--b c|-|x|;|:){0,30}", size in 1_usize..9) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let _ = runtime.block_on(parts(body.as_bytes(), size));
        }
    }
}
