//! What commands print: tables and phrases for people, JSON for programs.
//!
//! Names, reasons and results come from outside. Control characters in them, which a terminal would
//! obey, are escaped in all that is printed, and secrets in tables and errors are hidden.

use super::client::ServerArgs;
use crate::domain::{
    printable::{PrintableStream, printable, printable_json, printable_lines},
    redact::{redact, redact_result},
};
use anyhow::{Context, Result};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::{
    fmt,
    io::{self, IsTerminal, Write},
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
    ($($argument:tt)*) => {
        $crate::cli::output::print_error(format_args!($($argument)*))
    };
}

pub(super) fn print_line(line: fmt::Arguments<'_>) {
    note(writeln!(
        io::stdout(),
        "{}",
        printable_lines(&line.to_string())
    ));
}

pub(super) fn print_error(line: fmt::Arguments<'_>) {
    let line = redact(&line.to_string());
    drop(writeln!(io::stderr(), "{}", printable_lines(&line)));
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

/// A log on its way to standard output. Files and pipes get its bytes as they are, a terminal gets
/// text.
pub(super) struct LogOutput {
    for_terminal: Option<PrintableStream>,
}

impl LogOutput {
    pub(super) fn new() -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self {
            for_terminal: is_terminal.then(PrintableStream::default),
        }
    }

    /// Prints the next bytes; returns whether there is a reader for more of them.
    pub(super) fn print(&mut self, bytes: &[u8]) -> bool {
        let mut out = io::stdout().lock();
        let written = match &mut self.for_terminal {
            Some(stream) => out.write_all(stream.push(bytes).as_bytes()),
            None => out.write_all(bytes),
        };
        note(written.and_then(|()| out.flush()))
    }
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

fn table_of<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
    shown: impl Fn(&str) -> String,
) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_BORDERS_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings);
    table.add_rows(rows.into_iter().map(|row| row.map(|cell| shown(&cell))));
    table
}

/// Makes a table with these headings. Each cell is one line: a name with a line feed in it would
/// look like two rows.
pub(super) fn table<const N: usize>(
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> Table {
    table_of(headings, rows, |cell| {
        printable(&redact_result(cell)).into_owned()
    })
}

/// Makes a table of facts, of which some have several lines.
pub(super) fn facts(rows: impl IntoIterator<Item = [String; 2]>) -> Table {
    table_of(["fact", "value"], rows, |cell| {
        printable_lines(&redact_result(cell)).into_owned()
    })
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
    outln!("{}", printable_json(&serde_json::to_string_pretty(value)?));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_have_no_control_characters() {
        let row = || ["\x1b[2J".to_owned(), "a\nb".to_owned()];
        let shown = table(["one", "two"], [row()]).to_string();
        assert!(shown.contains("\\u{1b}[2J"), "{shown}");
        assert!(shown.contains("a\\nb"), "{shown}");
        let shown = facts([row()]).to_string();
        assert!(!shown.contains('\x1b'), "{shown}");
    }
}
