//! `worker add|ls|rotate|rm`: the accounts of workers.

use super::{
    client::{Reply, ServerArgs},
    output::{print_done, print_json, table},
};
use crate::adapters::wire::{AccountResponse, NewWorkerRequest, PasswordResponse};
use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::json;
use std::{path::PathBuf, process::ExitCode};

/// Accounts of workers.
#[derive(Debug, Subcommand)]
pub(super) enum AccountsCommand {
    /// Add a worker; without a password file, a random password is made and shown once
    Add {
        /// Name of the worker
        name: String,
        /// URL where people find out about the worker
        #[arg(long)]
        link: Option<String>,
        /// File with the password
        #[arg(long)]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List workers
    Ls {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Give a worker a new random password, which is shown once
    Rotate {
        /// Name of the worker
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Remove a worker
    Rm {
        /// Name of the worker
        name: String,
        /// Remove it even while it holds a run
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(super) async fn accounts(command: AccountsCommand) -> Result<ExitCode> {
    match command {
        AccountsCommand::Add {
            name,
            link,
            password_file,
            server,
        } => add(&server, name, link, password_file).await,
        AccountsCommand::Ls { server } => list(&server).await,
        AccountsCommand::Rotate { name, server } => rotate(&server, &name).await,
        AccountsCommand::Rm {
            name,
            force,
            server,
        } => remove(&server, &name, force).await,
    }
}

async fn add(
    args: &ServerArgs,
    name: String,
    link: Option<String>,
    password_file: Option<PathBuf>,
) -> Result<ExitCode> {
    let password = password_file
        .map(|path| std::fs::read_to_string(&path).with_context(|| path.display().to_string()))
        .transpose()?;
    let request = NewWorkerRequest {
        name,
        password: password.map(|password| password.trim_end_matches(['\r', '\n']).to_owned()),
        link,
    };
    let added = args.client()?.post(&["admin", "workers"], &request).await?;
    print_account(args, added, &format!("worker {} added", request.name))
}

async fn rotate(args: &ServerArgs, name: &str) -> Result<ExitCode> {
    let rotated = args
        .client()?
        .post_empty(&["admin", "workers", name, "rotate"])
        .await?;
    print_account(args, rotated, &format!("worker {name} has a new password"))
}

async fn remove(args: &ServerArgs, name: &str, force: bool) -> Result<ExitCode> {
    let query = if force {
        vec![("force", "1".to_owned())]
    } else {
        vec![]
    };
    args.client()?
        .delete(&["admin", "workers", name], &query)
        .await?;
    print_done(
        args,
        &json!({ "removed": name }),
        &format!("worker {name} removed"),
    )
}

/// Prints what was done to an account, and its password if the service made one.
fn print_account(
    args: &ServerArgs,
    account: Reply<PasswordResponse>,
    summary: &str,
) -> Result<ExitCode> {
    let json = account.json.clone();
    let password = account
        .parse()?
        .password
        .map(|password| format!("\nits password, shown this once: {password}"))
        .unwrap_or_default();
    print_done(args, &json, &format!("{summary}{password}"))
}

async fn list(args: &ServerArgs) -> Result<ExitCode> {
    let workers = args
        .client()?
        .get_pages::<AccountResponse>(&["admin", "workers"], "workers")
        .await?;
    if args.json {
        return print_json(&json!({ "workers": workers.json }));
    }
    let rows = workers.parse()?.into_iter().map(|worker| {
        [
            worker.name,
            worker.link.unwrap_or_default(),
            worker.runs.len().to_string(),
            worker.last_seen.unwrap_or_default(),
            worker.failures.to_string(),
            worker.paused.map(|pause| pause.reason).unwrap_or_default(),
        ]
    });
    outln!(
        "{}",
        table(
            [
                "name",
                "link",
                "runs held",
                "last seen",
                "failures in a row",
                "paused"
            ],
            rows
        )
    );
    Ok(ExitCode::SUCCESS)
}
