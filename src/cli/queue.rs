//! `queue ls|explain`.

use super::{
    client::ServerArgs,
    output::{print_json, table},
};
use crate::adapters::wire::{ExplanationResponse, QueueItemResponse};
use anyhow::Result;
use clap::Subcommand;
use serde_json::Value;
use std::process::ExitCode;

/// The queue.
#[derive(Debug, Subcommand)]
pub(super) enum QueueCommand {
    /// List queue items in order
    Ls {
        #[command(flatten)]
        server: ServerArgs,
        /// Maximum number of entries
        #[arg(long, default_value_t = 50)]
        limit: usize,
    },
    /// Explain the position of an item and what keeps it from being assigned
    Explain {
        /// Id of the item
        id: i64,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(super) async fn queue(command: QueueCommand) -> Result<ExitCode> {
    match command {
        QueueCommand::Ls { server, limit } => list(&server, limit).await,
        QueueCommand::Explain { id, server } => explain(&server, id).await,
    }
}

async fn list(args: &ServerArgs, limit: usize) -> Result<ExitCode> {
    let items = args
        .client()?
        .get::<Vec<QueueItemResponse>>(&["queue"], &[("limit", limit.to_string())])
        .await?;
    if args.json {
        return print_json(&items.json);
    }
    let rows = items.parse()?.into_iter().map(|item| {
        [
            item.queue_id.to_string(),
            item.campaign,
            item.codebase,
            item.command,
            item.context.unwrap_or_default(),
        ]
    });
    outln!(
        "{}",
        table(["id", "campaign", "codebase", "command", "context"], rows)
    );
    Ok(ExitCode::SUCCESS)
}

async fn explain(args: &ServerArgs, id: i64) -> Result<ExitCode> {
    let explanation = args
        .client()?
        .get::<ExplanationResponse>(&["queue", &id.to_string(), "explain"], &[])
        .await?;
    if args.json {
        return print_json(&explanation.json);
    }
    let explanation = explanation.parse()?;
    let score = serde_json::to_value(&explanation.score)?;
    let score = score
        .as_object()
        .into_iter()
        .flatten()
        .map(|(part, value): (&String, &Value)| [format!("score: {part}"), value.to_string()]);
    let facts = [
        ("campaign", explanation.campaign),
        ("codebase", explanation.codebase),
        ("bucket", explanation.bucket),
        ("priority", explanation.priority.to_string()),
        ("position", explanation.position.to_string()),
    ]
    .map(|(name, value)| [name.to_owned(), value]);
    outln!(
        "{}",
        table(["fact", "value"], facts.into_iter().chain(score))
    );
    if explanation.blockers.is_empty() {
        outln!("a worker that asks gets it when its turn comes");
    }
    for blocker in explanation.blockers {
        let until = blocker
            .until
            .map_or_else(String::new, |until| format!(" (until {until})"));
        outln!("not assigned: {}: {}{until}", blocker.kind, blocker.detail);
    }
    Ok(ExitCode::SUCCESS)
}
