//! What commands print: tables and phrases for people, JSON for programs.

use super::client::ServerArgs;
use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;
use std::process::ExitCode;

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
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(ExitCode::SUCCESS)
}

/// Prints what a command did: `summary`, or with `--json` the response.
pub(super) fn print_done(args: &ServerArgs, response: &Value, summary: &str) -> Result<ExitCode> {
    if args.json {
        return print_json(response);
    }
    println!("{summary}");
    Ok(ExitCode::SUCCESS)
}
