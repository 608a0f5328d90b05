//! The command line. Without a command it serves, with the flags of the Python runner.

mod accounts;
mod check;
mod client;
mod demo;
mod logs;
mod migrate;
mod restraints;
mod serve;
mod table;
mod telemetry;
mod work;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Coordinates automated code changes: decides what runs next, hands it to workers, takes their results in.
#[derive(Debug, Parser)]
#[command(
    name = "janitor-runner",
    version,
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service (also what happens without a command)
    Serve(serve::ServeArgs),
    /// Run codemods for a service, on this machine; or keep the accounts of workers (add, ls, rotate, rm)
    Worker(work::WorkArgs),
    /// See codemods run for real, on repositories made for it, with nothing to set up
    Demo(demo::DemoArgs),
    /// Print the settings in force and where each comes from, without secrets
    Config(serve::ServeArgs),
    /// Open every store and say what works
    Check(serve::ServeArgs),
    /// Make or update the tables of a Postgres database
    Migrate(migrate::MigrateArgs),
    /// What a running service is doing
    Status(client::ServerArgs),
    /// The queue of a running service
    #[command(subcommand)]
    Queue(client::QueueCommand),
    /// Runs, active and finished
    #[command(subcommand)]
    Run(client::RunCommand),
    /// Items whose runs failed too often, which wait to be released
    #[command(subcommand)]
    Parked(restraints::ParkedCommand),
    /// Hand out nothing of something for a while
    #[command(subcommand)]
    Pause(restraints::PauseCommand),
    /// How many runs of a campaign, or on a host, there may be at the same time
    #[command(subcommand)]
    Limit(restraints::LimitCommand),
    /// Candidates
    #[command(subcommand)]
    Candidate(client::CandidateCommand),
    /// Codebases
    #[command(subcommand)]
    Codebase(client::CodebaseCommand),
}

/// Parses the arguments and does what they say. Exit codes: 0 done, 1 it failed, 2 wrong arguments.
pub async fn run() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("janitor-runner: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(cli: Cli) -> Result<ExitCode> {
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::serve(args).await,
        Command::Worker(args) => work::work(args).await,
        Command::Demo(args) => demo::demo(args).await,
        Command::Config(args) => check::config(args),
        Command::Check(args) => check::check(args).await,
        Command::Migrate(args) => migrate::migrate(args).await,
        Command::Status(args) => client::status(args).await,
        Command::Queue(command) => client::queue(command).await,
        Command::Run(command) => client::run(command).await,
        Command::Parked(command) => restraints::parked(command).await,
        Command::Pause(command) => restraints::pause(command).await,
        Command::Limit(command) => restraints::limit(command).await,
        Command::Candidate(command) => client::candidate(command).await,
        Command::Codebase(command) => client::codebase(command).await,
    }
}
