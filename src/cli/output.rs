//! What commands print: tables and phrases for people, JSON for programs.

use super::client::ServerArgs;
use anyhow::{Context, Result};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::{
    fmt,
    io::{self, Write},
    process::ExitCode,
    sync::OnceLock,
};

/// The first failure to write to standard output, other than that its reader has gone.
static FAILURE: OnceLock<io::Error> = OnceLock::new();

/// Prints a line to standard output. Unlike `println!` it does not panic when the reader has gone,
/// such as `head` after its last line; [`check`] returns other failures.
macro_rules! outln {
    ($($argument:tt)*) => {
        $crate::cli::output::print_line(format_args!($($argument)*))
    };
}

/// Prints a line to standard error, if somebody reads it.
macro_rules! errln {
    ($($argument:tt)*) => {{
        use std::io::Write as _;
        drop(writeln!(std::io::stderr(), $($argument)*));
    }};
}

pub(super) fn print_line(line: fmt::Arguments<'_>) {
    note(writeln!(io::stdout(), "{line}"));
}

/// Keeps the first failure; returns whether there is a reader.
fn note(written: io::Result<()>) -> bool {
    match written {
        Ok(()) => true,
        Err(error) => {
            if error.kind() != io::ErrorKind::BrokenPipe {
                FAILURE.get_or_init(|| error);
            }
            false
        }
    }
}

/// Copies bytes to standard output; returns whether there is a reader for more of them.
pub(super) fn print_bytes(bytes: &[u8]) -> bool {
    let mut out = io::stdout().lock();
    note(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Checks that what was printed is written, or has no reader.
///
/// # Errors
///
/// Returns an error when something could not be written, to a full disk for example.
pub(super) fn check() -> Result<()> {
    note(io::stdout().flush());
    match FAILURE.get() {
        Some(error) => Err(io::Error::from(error.kind())).context("write to standard output"),
        None => Ok(()),
    }
}

/// Makes a table with these headings.
pub(super) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings);
    table.add_rows(rows);
    table
}

/// Formats a number of seconds in the unit that suits it.
pub(super) fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 60.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.0} min", s / 60.0),
        s if s < 86_400.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}

/// Abbreviates a revision.
pub(super) fn short(revision: &str) -> String {
    revision.chars().take(10).collect()
}

/// Formats a JSON value for a cell of a table: text without quotes, null as nothing.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(super) fn print_json(value: &Value) -> Result<ExitCode> {
    outln!("{}", serde_json::to_string_pretty(value)?);
    Ok(ExitCode::SUCCESS)
}

/// Prints what a command did: `summary`, or with `--json` the response.
pub(super) fn print_done(args: &ServerArgs, response: &Value, summary: &str) -> Result<ExitCode> {
    if args.json {
        return print_json(response);
    }
    outln!("{summary}");
    Ok(ExitCode::SUCCESS)
}
