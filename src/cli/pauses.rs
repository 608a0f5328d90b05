//! `pause ls|add|rm`.

use super::{
    client::ServerArgs,
    output::{print_done, print_json, table},
    scope::{ScopeArgs, ScopedArgs},
};
use crate::adapters::wire::{PauseRequest, PauseResponse, PausesResponse};
use anyhow::Result;
use clap::Subcommand;
use std::process::ExitCode;

/// Pauses.
#[derive(Debug, Subcommand)]
pub(super) enum PauseCommand {
    /// List pauses
    Ls(ServerArgs),
    /// Pause a campaign, host, codebase, bucket or worker, or everything; active runs continue
    Add {
        #[command(flatten)]
        scope: ScopeArgs,
        /// Reason, for other people to read
        #[arg(long, default_value = "")]
        reason: String,
        /// Time when the pause ends by itself, in UTC (2026-12-24T18:00:00)
        #[arg(long)]
        until: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// End a pause
    Rm(ScopedArgs),
}

pub(super) async fn pause(command: PauseCommand) -> Result<ExitCode> {
    match command {
        PauseCommand::Ls(args) => list(&args).await,
        PauseCommand::Add {
            scope,
            reason,
            until,
            server: args,
        } => {
            let request = PauseRequest {
                kind: scope.kind.clone(),
                name: scope.name.clone(),
                reason,
                until,
            };
            let paused = args
                .client()?
                .put::<PauseResponse, _>(&["pauses"], &request)
                .await?;
            print_done(&args, &paused.json, &format!("{scope} is paused"))
        }
        PauseCommand::Rm(args) => args.remove("pauses", "goes on").await,
    }
}

async fn list(args: &ServerArgs) -> Result<ExitCode> {
    let pauses = args
        .client()?
        .get::<PausesResponse>(&["pauses"], &[])
        .await?;
    if args.json {
        return print_json(&pauses.json);
    }
    let rows = pauses.parse()?.pauses.into_iter().map(|pause| {
        [
            pause.kind.into_owned(),
            pause.name.unwrap_or_default(),
            pause.reason,
            pause.since,
            pause.until.unwrap_or_default(),
        ]
    });
    outln!(
        "{}",
        table(["kind", "name", "reason", "since", "until"], rows)
    );
    Ok(ExitCode::SUCCESS)
}
