//! Commands that pause, limit and release, over the admin API of a running service.

use super::{
    client::{Server, ServerArgs, done, list, print_json, text},
    table::table,
};
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};
use std::process::ExitCode;

/// What is paused or limited.
#[derive(Debug, Args)]
pub(super) struct ScopeArgs {
    /// One of all, campaign, host, codebase, bucket, worker
    kind: String,
    /// Which one; not for all
    name: Option<String>,
}

/// Something that is paused or limited, and where.
#[derive(Debug, Args)]
pub(super) struct ScopedArgs {
    #[command(flatten)]
    scope: ScopeArgs,
    #[command(flatten)]
    server: ServerArgs,
}

/// Pauses.
#[derive(Debug, Subcommand)]
pub(super) enum PauseCommand {
    /// What is paused
    Ls(ServerArgs),
    /// Hand out nothing of a campaign, host, codebase or bucket, to a worker, or at all; what runs goes on
    Add {
        #[command(flatten)]
        scope: ScopeArgs,
        /// Why, for others to read
        #[arg(long, default_value = "")]
        reason: String,
        /// When it ends by itself, in UTC (2026-12-24T18:00:00)
        #[arg(long)]
        until: Option<String>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// End a pause
    Rm(ScopedArgs),
}

/// Limits on runs at the same time.
#[derive(Debug, Subcommand)]
pub(super) enum LimitCommand {
    /// All limits, and how much of each is used
    Ls(ServerArgs),
    /// Limit a campaign or a host
    Set {
        /// campaign or host
        kind: String,
        /// Which one
        name: String,
        /// Runs at the same time, at the most
        most: u32,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Take a limit away
    Rm(ScopedArgs),
}

/// Items whose runs failed too often.
#[derive(Debug, Subcommand)]
pub(super) enum ParkedCommand {
    /// What is parked, and why
    Ls(ServerArgs),
    /// Let items be handed out again: some by id, or those of a campaign or codebase, or all
    Release {
        /// Queue ids, as `parked ls` shows them
        ids: Vec<i64>,
        /// All of this campaign
        #[arg(long)]
        campaign: Option<String>,
        /// All of this codebase
        #[arg(long)]
        codebase: Option<String>,
        /// All of them
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

impl ScopeArgs {
    fn query(&self) -> Vec<(&'static str, String)> {
        std::iter::once(("kind", self.kind.clone()))
            .chain(self.name.clone().map(|name| ("name", name)))
            .collect()
    }

    fn said(&self) -> String {
        format!("{} {}", self.kind, self.name.as_deref().unwrap_or_default())
            .trim_end()
            .to_owned()
    }
}

/// Prints these fields of what there is of a kind, or all of it in JSON.
fn listed<const N: usize>(
    args: &ServerArgs,
    kind: &str,
    all: &Value,
    columns: [(&str, &str); N],
) -> Result<ExitCode> {
    if args.json {
        return print_json(all);
    }
    let rows = list(all.get(kind).unwrap_or(&Value::Null)).iter();
    println!(
        "{}",
        table(
            columns.map(|(_, heading)| heading),
            rows.map(|row| columns.map(|(field, _)| text(row, field)))
        )
    );
    Ok(ExitCode::SUCCESS)
}

async fn lift(ScopedArgs { scope, server }: ScopedArgs, kind: &str, now: &str) -> Result<ExitCode> {
    Server::new(&server.server)?
        .delete(&[kind], &scope.query())
        .await?;
    done(
        &server,
        &json!({ "kind": scope.kind, "name": scope.name }),
        &format!("{} {now}", scope.said()),
    )
}

/// `pause …`.
pub(super) async fn pause(command: PauseCommand) -> Result<ExitCode> {
    match command {
        PauseCommand::Ls(args) => {
            let pauses = Server::new(&args.server)?.get(&["pauses"], &[]).await?;
            listed(
                &args,
                "pauses",
                &pauses,
                ["kind", "name", "reason", "since", "until"].map(|field| (field, field)),
            )
        }
        PauseCommand::Add {
            scope,
            reason,
            until,
            server: args,
        } => {
            let body =
                json!({ "kind": scope.kind, "name": scope.name, "reason": reason, "until": until });
            let paused = Server::new(&args.server)?.put(&["pauses"], &body).await?;
            done(&args, &paused, &format!("{} is paused", scope.said()))
        }
        PauseCommand::Rm(args) => lift(args, "pauses", "goes on").await,
    }
}

/// `limit …`.
pub(super) async fn limit(command: LimitCommand) -> Result<ExitCode> {
    match command {
        LimitCommand::Ls(args) => {
            let limits = Server::new(&args.server)?.get(&["limits"], &[]).await?;
            listed(
                &args,
                "limits",
                &limits,
                [
                    ("kind", "kind"),
                    ("name", "name"),
                    ("running", "running"),
                    ("most", "at most"),
                ],
            )
        }
        LimitCommand::Set {
            kind,
            name,
            most,
            server: args,
        } => {
            let body = json!({ "kind": kind, "name": name, "most": most });
            let limited = Server::new(&args.server)?.put(&["limits"], &body).await?;
            done(
                &args,
                &limited,
                &format!("{kind} {name}: at most {most} at the same time"),
            )
        }
        LimitCommand::Rm(args) => lift(args, "limits", "has no limit any more").await,
    }
}

/// `parked …`.
pub(super) async fn parked(command: ParkedCommand) -> Result<ExitCode> {
    match command {
        ParkedCommand::Ls(args) => {
            let parked =
                json!({ "parked": Server::new(&args.server)?.pages(&["parked"], "parked").await? });
            let columns = [
                ("queue_id", "id"),
                ("campaign", "campaign"),
                ("codebase", "codebase"),
                ("since", "since"),
                ("reason", "reason"),
            ];
            listed(&args, "parked", &parked, columns)
        }
        ParkedCommand::Release {
            ids,
            campaign,
            codebase,
            all,
            server: args,
        } => {
            if ids.is_empty() && campaign.is_none() && codebase.is_none() && !all {
                bail!("name items by their ids, --campaign or --codebase, or say --all");
            }
            let ids = Some(ids).filter(|ids| !ids.is_empty());
            let body =
                json!({ "queue_ids": ids, "campaign": campaign, "codebase": codebase, "all": all });
            let answer = Server::new(&args.server)?
                .send(Method::POST, &["parked", "unpark"], &[], Some(&body))
                .await?
                .json::<Value>()
                .await?;
            let released = list(answer.get("unparked").unwrap_or(&Value::Null)).len();
            done(&args, &answer, &format!("{released} released"))
        }
    }
}
