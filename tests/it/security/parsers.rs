//! Parsers of what comes from outside: no bytes make one panic, take long, or return more than came in. Those that are
//! private to their modules (multipart bodies, `Content-Range`, responses of backchannels) have such tests beside them.

use janitor_runner::{
    domain::{
        branch_url::{join_branch_url, split_branch_url},
        changes,
        codebase::CodebaseUpload,
        command, committer, host,
        log_name::{FileNames, validate_file_name},
        report, time,
    },
    settings::{self, Flags},
};
use proptest::prelude::*;
use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

/// The size of the largest text that the parsers get here, in bytes.
const MAX_SIZE: usize = 64 << 10;
/// How long a parser may take for it, unoptimised and beside other tests.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Bytes that look like what a parser expects: its own words, repeated and cut anywhere, among any bytes.
fn bytes_like(words: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => (prop::sample::select(words), 1_usize..4).prop_map(|(word, times)| word.repeat(times).into_bytes()),
        1 => (prop::sample::select(words), 1_usize..8000).prop_map(|(word, times)| word.repeat(times).into_bytes()),
        2 => prop::collection::vec(any::<u8>(), 0..20),
        2 => "\\PC{0,20}".prop_map(String::into_bytes),
    ];
    (prop::collection::vec(piece, 0..30), 0..MAX_SIZE).prop_map(|(pieces, size)| {
        let mut bytes = pieces.concat();
        bytes.truncate(size);
        bytes
    })
}

/// Runs a parser and checks how long it takes.
fn timed<T>(parse: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let parsed = parse();
    assert!(started.elapsed() < MAX_TIME, "{:?}", started.elapsed());
    parsed
}

const JSON: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    "\"",
    ":",
    ",",
    "\\u0000",
    "\\ud800",
    "\\",
    "null",
    "1e999",
    "-",
    "NaN",
    "0.1",
    "\"code\":",
    "\"branches\":[[\"main\",null,\"r\",\"r\"]]",
    "\"start_time\":\"2026-11-26T00:00:00\"",
    "\"details\":{",
    "\"value\":1e300",
    "\"target\":{\"name\":\"debian\",\"details\":",
    "\"tags\":[[\"a\",\"r\"]]",
];
const DEB822: &[&str] = &[
    "Format: 1.8\n",
    "Source: a\n",
    "Version: 1:2-3\n",
    "Distribution: unstable\n",
    "Files:\n",
    " d41d8 5 devel optional a_1_all.deb\n",
    "Checksums-Sha256:\n",
    "\n\n",
    "\n ",
    ":",
    "\r\n",
    " .\n",
    "#",
    "-----BEGIN PGP SIGNED MESSAGE-----\n",
    "-----BEGIN PGP SIGNATURE-----\n",
    "- ",
];
const PROTO: &[&str] = &[
    "campaign",
    "{",
    "}",
    "<",
    ">",
    "[",
    "]",
    "name: \"aa\"",
    "command: 'x'",
    ":",
    ";",
    ",",
    "#",
    "\n",
    "\"",
    "'",
    "\\x41",
    "\\777",
    "committer: 'A <a@b>'",
    "origin",
    "5",
    "-1.0e9",
    "true",
    "distribution {",
    "[a.b/c] {",
];
const URLS: &[&str] = &[
    "https://",
    "git@",
    "host",
    ":",
    "/",
    "x.git",
    ",branch=",
    ",ref=refs/heads/",
    "%2F",
    "%",
    "%ff",
    "@",
    "[::1]",
    "?",
    "#",
    "file://",
    "..",
    ",",
    "=",
    " ",
    "\u{202e}",
    "\0",
];
const COMMANDS: &[&str] = &[
    "A=1 ", "B='x y' ", "\"", "'", "\\", "#", " ", "\n", "$(x)", "=", "tidy", "--all", "|", ";",
    "\t",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_report_is_read(bytes in bytes_like(JSON)) {
        let report = timed(|| report::read(&bytes));
        let original = report.original.to_string();
        prop_assert!(original.len() <= 8 * bytes.len() + 1000, "{}", original.len());
        prop_assert!(report.notes.len() + report.problems.len() <= 2000);
    }

    #[test]
    fn any_changes_file_is_read_or_refused(bytes in bytes_like(DEB822)) {
        let text = String::from_utf8_lossy(&bytes);
        if let Ok(read) = timed(|| changes::read("x.changes", &text)) {
            prop_assert!(read.files.iter().map(String::len).sum::<usize>() <= text.len());
            let pair = [("a".to_owned(), read.clone()), ("b".to_owned(), read)];
            prop_assert!(timed(|| changes::merge(&pair)).is_ok());
        }
    }

    #[test]
    fn any_janitor_conf_is_read_or_refused(bytes in bytes_like(PROTO)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let flags = Flags(figment::value::Dict::new());
        if let Err(error) = timed(|| settings::load(&[file.path().to_owned()], flags)) {
            prop_assert!(error.to_string().len() <= 2000 + bytes.len());
        }
    }

    #[test]
    fn any_codebase_url_is_read_or_refused(bytes in bytes_like(URLS)) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        timed(|| {
            host::host_of(&text);
            host::normalize(&text);
            if let Ok((url, branch)) = split_branch_url(&text) {
                join_branch_url(&url, branch.as_deref());
            }
            let upload = CodebaseUpload { branch_url: Some(text.clone()), ..CodebaseUpload::default() };
            drop(upload.validate());
            let upload = CodebaseUpload { url: Some(text.clone()), name: Some(text), ..CodebaseUpload::default() };
            drop(upload.validate());
        });
    }

    #[test]
    fn any_command_name_or_time_is_read_or_refused(bytes in bytes_like(COMMANDS)) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        timed(|| {
            drop(command::validate(&text));
            drop(command::split_environment(&text));
            drop(time::parse("x", &text));
            drop(committer::environment(Some(&text)));
            drop(validate_file_name(&text));
        });
        let name = timed(|| FileNames::default().storable(&text));
        prop_assert!(validate_file_name(&name).is_ok(), "{name:?}");
    }
}

/// A file of the largest size that is read lists as many files as fit: each look-up must cost the same.
#[test]
fn largest_changes_file_is_read_in_time() {
    let mut text = "Source: a\nVersion: 1\nDistribution: unstable\nFiles:\n".to_owned();
    let mut number = 0;
    while text.len() < 16 << 20 {
        writeln!(text, " 0 0 x x {number:x}_1_all.deb").unwrap();
        number += 1;
    }
    let started = Instant::now();
    let refused = changes::read("x.changes", &text).unwrap_err();
    assert!(
        refused.reason.contains("more than 20000 files"),
        "{refused}"
    );
    let end = text.find(&format!(" 0 0 x x {:x}_", 20_000)).unwrap();
    text.truncate(end);
    text.push_str("Description:\n");
    while text.len() < 16 << 20 {
        text.push_str(" a line of the description\n");
    }
    let read = changes::read("x.changes", &text).unwrap();
    assert_eq!(read.files.len(), 20_000);
    let pair = [("a".to_owned(), read.clone()), ("b".to_owned(), read)];
    changes::merge(&pair).unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{:?}",
        started.elapsed()
    );
}
