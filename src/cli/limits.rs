//! `limit ls|set|rm`.

use super::{
    client::ServerArgs,
    output::{print_done, print_json, table},
    scope::ScopedArgs,
};
use crate::adapters::wire::{LimitRequest, LimitsResponse};
use anyhow::Result;
use clap::Subcommand;
use std::process::ExitCode;

/// Concurrency limits.
#[derive(Debug, Subcommand)]
pub(super) enum LimitCommand {
    /// List concurrency limits and how much of each is used
    Ls(ServerArgs),
    /// Limit the concurrent runs of a campaign or on a host
    Set {
        /// One of campaign, host
        kind: String,
        /// Name of the campaign or host
        name: String,
        /// Maximum number of concurrent runs
        most: u32,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Ask a host again that limited the rate of requests (`status` lists them)
    Clear {
        /// Name of the host
        host: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Remove a limit
    Rm {
        /// One of campaign, host
        kind: String,
        /// Name of the campaign or host
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(super) async fn limit(command: LimitCommand) -> Result<ExitCode> {
    match command {
        LimitCommand::Ls(args) => list(&args).await,
        LimitCommand::Set {
            kind,
            name,
            most,
            server: args,
        } => {
            let summary = format!("{kind} {name}: at most {most} at the same time");
            let request = LimitRequest { kind, name, most };
            let limited = args
                .client()?
                .put::<LimitRequest, _>(&["limits"], &request)
                .await?;
            print_done(&args, &limited.json, &summary)
        }
        LimitCommand::Clear { host, server } => {
            let client = server.client()?;
            client.delete(&["limits", "hosts", &host], &[]).await?;
            let summary = format!("{host} is asked again");
            print_done(&server, &serde_json::json!({ "host": host }), &summary)
        }
        LimitCommand::Rm { kind, name, server } => {
            let scoped = ScopedArgs::new(kind, name, server);
            scoped.remove("limits", "has no limit any more").await
        }
    }
}

async fn list(args: &ServerArgs) -> Result<ExitCode> {
    let limits = args
        .client()?
        .get::<LimitsResponse>(&["limits"], &[])
        .await?;
    if args.json {
        return print_json(&limits.json);
    }
    let rows = limits.parse()?.limits.into_iter().map(|usage| {
        [
            usage.limit.kind,
            usage.limit.name,
            usage.running.to_string(),
            usage.limit.most.to_string(),
        ]
    });
    outln!("{}", table(["kind", "name", "running", "at most"], rows));
    Ok(ExitCode::SUCCESS)
}
