//! `parked ls|unpark`.

use super::{
    client::ServerArgs,
    output::{print_done, print_json, table},
};
use crate::adapters::wire::{ParkedResponse, UnparkRequest, UnparkedResponse};
use anyhow::{Result, bail};
use clap::Subcommand;
use serde_json::json;
use std::process::ExitCode;

/// Parked items.
#[derive(Debug, Subcommand)]
pub(super) enum ParkedCommand {
    /// List parked items and the reason of each
    Ls(ServerArgs),
    /// Unpark items: some by id, those of a campaign or codebase, or all
    Unpark {
        /// Queue ids, as `parked ls` shows them
        ids: Vec<i64>,
        /// Unpark all items of this campaign
        #[arg(long)]
        campaign: Option<String>,
        /// Unpark all items of this codebase
        #[arg(long)]
        codebase: Option<String>,
        /// Unpark all items
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(super) async fn parked(command: ParkedCommand) -> Result<ExitCode> {
    match command {
        ParkedCommand::Ls(args) => list(&args).await,
        ParkedCommand::Unpark {
            ids,
            campaign,
            codebase,
            all,
            server,
        } => {
            // An omission must not unpark everything.
            if ids.is_empty() && campaign.is_none() && codebase.is_none() && !all {
                bail!("name items by their ids, --campaign or --codebase, or say --all");
            }
            let request = UnparkRequest {
                queue_ids: Some(ids).filter(|ids| !ids.is_empty()),
                campaign,
                codebase,
                all,
            };
            unpark(&server, &request).await
        }
    }
}

async fn unpark(args: &ServerArgs, request: &UnparkRequest) -> Result<ExitCode> {
    let response = args
        .client()?
        .post::<UnparkedResponse, _>(&["parked", "unpark"], request)
        .await?;
    let json = response.json.clone();
    let count = response.parse()?.unparked.len();
    print_done(args, &json, &format!("{count} unparked"))
}

async fn list(args: &ServerArgs) -> Result<ExitCode> {
    let parked = args
        .client()?
        .get_pages::<ParkedResponse>(&["parked"], "parked")
        .await?;
    if args.json {
        return print_json(&json!({ "parked": parked.json }));
    }
    let rows = parked.parse()?.into_iter().map(|item| {
        [
            item.queue_id.to_string(),
            item.campaign,
            item.codebase,
            item.since.unwrap_or_default(),
            item.reason,
        ]
    });
    outln!(
        "{}",
        table(["id", "campaign", "codebase", "since", "reason"], rows)
    );
    Ok(ExitCode::SUCCESS)
}
