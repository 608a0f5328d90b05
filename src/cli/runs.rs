//! `run ls|show|logs|chain|check-resume|kill`.

use super::{
    client::{Refused, Server, ServerArgs},
    logs::{self, LogsArgs},
    output::{LogOutput, cell, duration, facts, print_done, print_json, short, table},
};
use crate::adapters::wire::{
    ResumeChainResponse, ResumeCheckRequest, ResumeCheckResponse, RunResponse,
};
use anyhow::Result;
use clap::Subcommand;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Runs.
#[derive(Debug, Subcommand)]
pub(super) enum RunCommand {
    /// List the latest finished runs
    Ls {
        #[command(flatten)]
        server: ServerArgs,
        /// Maximum number of entries
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
        limit: u64,
    },
    /// Show every stored fact of a finished or active run
    Show {
        /// Id of the run
        id: String,
        #[command(flatten)]
        server: ServerArgs,
        /// Print its logs too
        #[arg(long)]
        log: bool,
    },
    /// Print a log of a finished or active run
    Logs(LogsArgs),
    /// List the runs that a run resumed from, the nearest first
    Chain {
        /// Id of the run
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Check whether a run of a campaign would resume from an earlier one
    CheckResume {
        /// Name of the campaign
        campaign: String,
        /// Name of the codebase
        codebase: String,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Ask the worker of an active run to stop it
    Kill {
        /// Id of the run
        id: String,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(super) async fn run(command: RunCommand) -> Result<ExitCode> {
    match command {
        RunCommand::Ls { server, limit } => list(&server, limit).await,
        RunCommand::Show { id, server, log } => show(&server, &id, log).await,
        RunCommand::Logs(args) => logs::logs(args).await,
        RunCommand::Chain { id, server } => chain(&server, &id).await,
        RunCommand::CheckResume {
            campaign,
            codebase,
            server,
        } => check_resume(&server, campaign, codebase).await,
        RunCommand::Kill { id, server } => kill(&server, &id).await,
    }
}

async fn list(args: &ServerArgs, limit: u64) -> Result<ExitCode> {
    let runs = args
        .client()?
        .get::<Vec<RunResponse>>(&["runs"], &[("limit", limit.to_string())])
        .await?;
    if args.json {
        return print_json(&runs.json);
    }
    print_runs(runs.parse()?);
    Ok(ExitCode::SUCCESS)
}

fn print_runs(runs: Vec<RunResponse>) {
    let rows = runs.into_iter().map(|run| {
        let result = run.result;
        [
            result.log_id,
            result.campaign,
            result.codebase,
            result.code,
            duration(result.duration),
            result.revision.as_deref().map(short).unwrap_or_default(),
            result.finish_time,
        ]
    });
    outln!(
        "{}",
        table(
            [
                "run", "campaign", "codebase", "result", "duration", "revision", "finished",
            ],
            rows
        )
    );
}

async fn chain(args: &ServerArgs, id: &str) -> Result<ExitCode> {
    let client = args.client()?;
    let path = ["resume", "chain", id];
    let (mut chain, mut cursor) = (vec![], None);
    loop {
        let query: Vec<_> = cursor
            .iter()
            .map(|next: &String| ("cursor", next.clone()))
            .collect();
        let page = client.get::<ResumeChainResponse>(&path, &query).await?;
        let page = page.parse()?;
        chain.extend(page.chain);
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    if args.json {
        return print_json(&json!({ "run_id": id, "chain": chain, "next": null }));
    }
    print_runs(chain);
    Ok(ExitCode::SUCCESS)
}

/// Prints what a run would resume from. Nothing to resume from is no failure.
async fn check_resume(args: &ServerArgs, campaign: String, codebase: String) -> Result<ExitCode> {
    let request = ResumeCheckRequest {
        campaign,
        codebase: Some(codebase),
        branch_url: None,
    };
    let client = args.client()?;
    let reply = client
        .post::<ResumeCheckResponse, _>(&["resume", "check"], &request)
        .await?;
    if args.json {
        return print_json(&reply.json);
    }
    let check = reply.parse()?;
    match (check.resume, check.reason) {
        (Some(resume), _) => outln!(
            "It would resume from the run {}: {}",
            resume.run_id,
            resume.branch_url
        ),
        (None, reason) => outln!("It would start afresh: {}", reason.unwrap_or_default()),
    }
    Ok(ExitCode::SUCCESS)
}

async fn kill(args: &ServerArgs, id: &str) -> Result<ExitCode> {
    let run = args.client()?.post_empty::<Value>(&["kill", id]).await?;
    print_done(args, &run.json, &format!("run {id} is to stop"))
}

/// Shows a run that is active: it has no result yet.
async fn show_active(
    server: &Server,
    args: &ServerArgs,
    id: &str,
    with_logs: bool,
) -> Result<ExitCode> {
    let run = server.get::<Value>(&["active-runs", id], &[]).await?.json;
    if args.json {
        return print_json(&run);
    }
    outln!("active");
    print_facts(&run);
    if with_logs {
        outln!("its logs: janitor-runner run logs {id} -f");
    }
    Ok(ExitCode::SUCCESS)
}

async fn show(args: &ServerArgs, id: &str, with_logs: bool) -> Result<ExitCode> {
    let server = args.client()?;
    let (path, query) = (["runs", id], [("full", "1".to_owned())]);
    let run = match server.get::<RunResponse>(&path, &query).await {
        Err(error) if error.downcast_ref().is_some_and(Refused::is_not_found) => {
            return show_active(&server, args, id, with_logs).await;
        }
        found => found?,
    };
    if args.json {
        print_json(&run.json)?;
    } else {
        print_facts(&run.json);
    }
    if with_logs {
        for name in run.parse()?.result.logfilenames {
            if !args.json {
                outln!("--- {name}");
            }
            print_log(&server, id, &name).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints every fact that is known, also those that this version knows nothing of.
fn print_facts(run: &Value) {
    let known = run
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, value)| !value.is_null());
    outln!(
        "{}",
        facts(known.map(|(name, value)| [name.clone(), cell(value)]))
    );
}

/// Copies a log to standard output as it arrives.
async fn print_log(server: &Server, id: &str, name: &str) -> Result<()> {
    let mut response = server.get_raw(&["log", id, name], &[]).await?;
    let mut output = LogOutput::new();
    while let Some(chunk) = response.chunk().await? {
        if !output.print(&chunk) {
            break;
        }
    }
    Ok(())
}
