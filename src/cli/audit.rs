//! `audit ls`.

use super::{
    client::ServerArgs,
    output::{cell, print_json, table},
};
use crate::adapters::wire::{AuditEntryResponse, AuditResponse};
use anyhow::Result;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::process::ExitCode;

/// The audit log.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// List who changed what, latest first
    Ls(AuditArgs),
}

/// Which entries to list.
#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// Only changes of this token or user
    #[arg(long)]
    who: Option<String>,
    /// Only this action, such as worker.add
    #[arg(long)]
    action: Option<String>,
    /// Only changes of what has this name
    #[arg(long)]
    object: Option<String>,
    /// Only changes since this time, in UTC (2026-12-24T18:00:00)
    #[arg(long)]
    since: Option<String>,
    /// Only changes before this time, in UTC
    #[arg(long)]
    until: Option<String>,
    /// Maximum number of entries
    #[arg(long, default_value_t = 50)]
    limit: usize,
    #[command(flatten)]
    server: ServerArgs,
}

impl AuditArgs {
    fn filters(&self) -> Vec<(&'static str, String)> {
        [
            ("who", &self.who),
            ("action", &self.action),
            ("object", &self.object),
            ("since", &self.since),
            ("until", &self.until),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.clone()?)))
        .collect()
    }
}

pub(super) async fn audit(command: AuditCommand) -> Result<ExitCode> {
    let AuditCommand::Ls(args) = command;
    let (server, mut query) = (args.server.client()?, args.filters());
    let (mut entries, mut list): (Vec<AuditEntryResponse>, Vec<Value>) = (vec![], vec![]);
    let filters = query.len();
    while entries.len() < args.limit {
        query.push(("limit", (args.limit - entries.len()).min(1000).to_string()));
        let reply = server.get::<AuditResponse>(&["audit"], &query).await?;
        if let Some(Value::Array(more)) = reply.json.get("audit") {
            list.extend(more.clone());
        }
        let page = reply.parse()?;
        entries.extend(page.audit);
        let Some(next) = page.next else { break };
        query.truncate(filters);
        query.push(("cursor", next.to_string()));
    }
    if args.server.json {
        return print_json(&json!({ "audit": list }));
    }
    let rows = entries.into_iter().map(|entry| {
        let state = |state: Option<Value>| state.as_ref().map(cell).unwrap_or_default();
        [
            entry.at,
            entry.who,
            entry.address.unwrap_or_default(),
            entry.action,
            entry.object,
            state(entry.before),
            state(entry.after),
        ]
    });
    outln!(
        "{}",
        table(
            [
                "time", "who", "address", "action", "object", "before", "after"
            ],
            rows
        )
    );
    Ok(ExitCode::SUCCESS)
}
