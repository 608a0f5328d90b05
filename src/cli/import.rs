//! `candidate import` and `codebase import`.

use super::{
    client::ServerArgs,
    entries::{entries, unknown_fields},
    output::{print_done, print_json},
};
use crate::adapters::wire::CandidatesResponse;
use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The number of entries in one request.
const BATCH_SIZE: usize = 1000;
/// The number of rejected entries of a kind that are named.
const MAX_NAMED_REJECTIONS: usize = 10;

/// Candidates.
#[derive(Debug, Subcommand)]
pub(super) enum CandidateCommand {
    /// Upload candidates from a JSON, NDJSON or YAML file
    Import(ImportArgs),
}

/// Codebases.
#[derive(Debug, Subcommand)]
pub(super) enum CodebaseCommand {
    /// Upload codebases from a JSON, NDJSON or YAML file
    Import(ImportArgs),
}

/// What to upload.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    /// File to upload; - for standard input
    file: PathBuf,
    #[command(flatten)]
    server: ServerArgs,
}

fn read_entries(file: &Path) -> Result<Vec<Value>> {
    let text = if file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(file)
    };
    entries(&text.with_context(|| file.display().to_string())?)
        .with_context(|| file.display().to_string())
}

/// Uploads the entries of a file in batches, showing the progress. Returns the number of entries,
/// and the response to each batch.
async fn import<T: DeserializeOwned>(args: &ImportArgs, path: &str) -> Result<(usize, Vec<T>)> {
    let (server, entries) = (args.server.client()?, read_entries(&args.file)?);
    for (field, index) in unknown_fields(&entries) {
        errln!("warning: entry {index} has a field {field:?}, which nothing knows");
    }
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(entries.len() as u64)
        .with_style(style)
        .with_message(path.to_owned());
    let mut responses = vec![];
    for (index, batch) in entries.chunks(BATCH_SIZE).enumerate() {
        let response = server.post::<T, _>(&[path], batch).await;
        let first = index * BATCH_SIZE;
        let response = response.with_context(|| {
            let last = first + batch.len() - 1;
            match index {
                0 => format!("entries 0 to {last}, none of which is stored"),
                _ => {
                    format!("entries {first} to {last}, none of which is stored; those before are")
                }
            }
        })?;
        responses.push(response.parse()?);
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    Ok((entries.len(), responses))
}

/// Appends the entries of one response to those of all.
fn merge(all: &mut CandidatesResponse, batch: CandidatesResponse) {
    all.success.extend(batch.success);
    all.invalid_command.extend(batch.invalid_command);
    all.invalid_value.extend(batch.invalid_value);
    all.unknown_campaigns.extend(batch.unknown_campaigns);
    all.unknown_codebases.extend(batch.unknown_codebases);
    all.unknown_publish_policies
        .extend(batch.unknown_publish_policies);
    all.unknown_runs.extend(batch.unknown_runs);
}

/// Prints how many entries were rejected for one reason, and names the first of them.
fn print_rejected<T: Serialize>(reason: &str, rejected: &[T]) {
    if rejected.is_empty() {
        return;
    }
    let names: Vec<String> = rejected
        .iter()
        .take(MAX_NAMED_REJECTIONS)
        .map(|value| json!(value).to_string())
        .collect();
    outln!(
        "{} left out, {reason}: {}{}",
        rejected.len(),
        names.join(", "),
        if rejected.len() > MAX_NAMED_REJECTIONS {
            ", …"
        } else {
            ""
        }
    );
}

pub(super) async fn candidate(command: CandidateCommand) -> Result<ExitCode> {
    let CandidateCommand::Import(args) = command;
    let (total, responses) = import::<CandidatesResponse>(&args, "candidates").await?;
    let mut all = CandidatesResponse::default();
    for batch in responses {
        merge(&mut all, batch);
    }
    let accepted = all.success.len();
    if args.server.json {
        print_json(&json!(all))?;
    } else {
        outln!("{accepted} of {total} candidates stored and queued");
        print_rejected("invalid command", &all.invalid_command);
        print_rejected("invalid value", &all.invalid_value);
        print_rejected("unknown campaigns", &all.unknown_campaigns);
        print_rejected("unknown codebases", &all.unknown_codebases);
        print_rejected("unknown publish policies", &all.unknown_publish_policies);
        print_rejected("unknown runs", &all.unknown_runs);
    }
    Ok(if accepted == total {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

pub(super) async fn codebase(command: CodebaseCommand) -> Result<ExitCode> {
    let CodebaseCommand::Import(args) = command;
    let (total, _) = import::<Value>(&args, "codebases").await?;
    print_done(
        &args.server,
        &json!({ "stored": total }),
        &format!("{total} codebases stored"),
    )
}
