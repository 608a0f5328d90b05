//! `worker add|ls|rotate|rm`: the accounts of workers.

use super::{
    client::{Server, ServerArgs, done, list, print_json, text},
    table::table,
};
use anyhow::{Context, Result};
use clap::Subcommand;
use serde_json::{Value, json};
use std::{path::PathBuf, process::ExitCode};

/// Accounts of workers.
#[derive(Debug, Subcommand)]
pub(super) enum AccountsCommand {
    /// Add a worker; a password is made and shown once
    Add {
        /// Its name
        name: String,
        /// Where people find out about it
        #[arg(long)]
        link: Option<String>,
        /// A file with its password, when none should be made
        #[arg(long)]
        password_file: Option<PathBuf>,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// All workers
    Ls {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Give a worker a new password, shown once
    Rotate {
        /// Its name
        name: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Take a worker away
    Rm {
        /// Its name
        name: String,
        /// Even while it holds a run
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
}

/// `worker add|ls|rotate|rm`.
pub(super) async fn accounts(command: AccountsCommand) -> Result<ExitCode> {
    match command {
        AccountsCommand::Add {
            name,
            link,
            password_file,
            server: args,
        } => add_worker(&args, name, link, password_file).await,
        AccountsCommand::Ls { server: args } => list_workers(&args).await,
        AccountsCommand::Rotate { name, server: args } => {
            let rotated = Server::new(&args.server)?
                .post(&["admin", "workers", &name, "rotate"], &Value::Null)
                .await?;
            show_account(
                &args,
                &rotated,
                &format!("worker {name} has a new password"),
            )
        }
        AccountsCommand::Rm {
            name,
            force,
            server: args,
        } => {
            let query = if force {
                vec![("force", "1".to_owned())]
            } else {
                vec![]
            };
            Server::new(&args.server)?
                .delete(&["admin", "workers", &name], &query)
                .await?;
            done(
                &args,
                &json!({ "removed": name }),
                &format!("worker {name} removed"),
            )
        }
    }
}

async fn add_worker(
    args: &ServerArgs,
    name: String,
    link: Option<String>,
    password_file: Option<PathBuf>,
) -> Result<ExitCode> {
    let password = password_file
        .map(|path| std::fs::read_to_string(&path).with_context(|| path.display().to_string()))
        .transpose()?;
    let password = password.map(|password| password.trim_end_matches(['\r', '\n']).to_owned());
    let body = json!({ "name": name, "link": link, "password": password });
    let added = Server::new(&args.server)?
        .post(&["admin", "workers"], &body)
        .await?;
    show_account(args, &added, &format!("worker {name} added"))
}

/// A password that was made is shown.
fn show_account(args: &ServerArgs, account: &Value, what: &str) -> Result<ExitCode> {
    let password = account.get("password").and_then(Value::as_str);
    let shown = password
        .map(|password| format!("\nits password, shown this once: {password}"))
        .unwrap_or_default();
    done(args, account, &format!("{what}{shown}"))
}

async fn list_workers(args: &ServerArgs) -> Result<ExitCode> {
    let workers = Server::new(&args.server)?
        .pages(&["admin", "workers"], "workers")
        .await?;
    if args.json {
        return print_json(&json!({ "workers": workers }));
    }
    let held = |worker: &Value| {
        list(worker.get("runs").unwrap_or(&Value::Null))
            .len()
            .to_string()
    };
    let paused = |worker: &Value| {
        worker
            .get("paused")
            .map(|pause| text(pause, "reason"))
            .unwrap_or_default()
    };
    let row = |worker: &Value| {
        [
            text(worker, "name"),
            text(worker, "link"),
            held(worker),
            text(worker, "last_seen"),
            text(worker, "failures"),
            paused(worker),
        ]
    };
    println!(
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
            workers.iter().map(row)
        )
    );
    Ok(ExitCode::SUCCESS)
}
