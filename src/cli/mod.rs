//! The command line. Without a command it serves, with the flags of the Python runner.

// First, because its macros are used in the others.
#[macro_use]
mod output;

mod accounts;
mod audit;
mod check;
mod client;
mod demo;
mod entries;
mod import;
mod limits;
mod log_writer;
mod logs;
mod migrate;
mod parked;
mod pauses;
mod program;
mod queue;
mod runs;
mod scope;
mod serve;
mod status;
mod telemetry;
mod tokens;
mod work;
mod work_secrets;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Coordinates automated code changes: decides what runs next, assigns it to workers, ingests their
/// results
#[derive(Debug, Parser)]
#[command(
    name = "janitor-runner",
    version,
    args_conflicts_with_subcommands = true,
    // A flag that is given twice has its last value, as with the Python runner's parser.
    args_override_self = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service (the default without a command)
    Serve(serve::ServeArgs),
    /// Run a worker, or manage worker accounts (add, ls, rotate, rm)
    Worker(work::WorkArgs),
    /// Run codemods on example repositories, or on your own, without any setup
    Demo(demo::DemoArgs),
    /// Make a token for the admin API
    #[command(subcommand)]
    Token(tokens::TokenCommand),
    /// Print the settings in force and where each comes from, without secrets
    Config(check::ConfigArgs),
    /// Check the settings and that every store is reachable
    Check(serve::ServeArgs),
    /// Create or update the tables of a Postgres database
    Migrate(migrate::MigrateArgs),
    /// Show the status of a running service
    Status(client::ServerArgs),
    /// List queue items, or explain the position of one
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// List, show or kill runs, and print their logs
    #[command(subcommand)]
    Run(runs::RunCommand),
    /// List or unpark items that were parked after too many failures
    #[command(subcommand)]
    Parked(parked::ParkedCommand),
    /// Pause a campaign, host, codebase, bucket or worker
    #[command(subcommand)]
    Pause(pauses::PauseCommand),
    /// Set concurrency limits
    #[command(subcommand)]
    Limit(limits::LimitCommand),
    /// List who changed what through the admin API and the command line
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Import candidates
    #[command(subcommand)]
    Candidate(import::CandidateCommand),
    /// Import codebases
    #[command(subcommand)]
    Codebase(import::CodebaseCommand),
}

/// Parses the arguments and runs the command. Exit codes: 0 success, 1 failure, 2 wrong arguments.
pub async fn run() -> ExitCode {
    let code = dispatch(Cli::parse()).await.and_then(|code| {
        output::check()?;
        Ok(code)
    });
    telemetry::flush();
    code.unwrap_or_else(|error| {
        errln!("janitor-runner: {error:#}");
        let refused = error.downcast_ref::<client::Refused>();
        if refused.is_some_and(client::Refused::is_usage) {
            ExitCode::from(2)
        } else {
            ExitCode::FAILURE
        }
    })
}

async fn dispatch(cli: Cli) -> Result<ExitCode> {
    match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(args) => serve::serve(args).await,
        Command::Worker(args) => Box::pin(work::work(args)).await,
        Command::Demo(args) => demo::demo(args).await,
        Command::Token(command) => tokens::token(command),
        Command::Config(args) => check::config(args),
        Command::Check(args) => check::check(args).await,
        Command::Migrate(args) => migrate::migrate(args).await,
        Command::Status(args) => status::status(args).await,
        Command::Queue(command) => queue::queue(command).await,
        Command::Run(command) => runs::run(command).await,
        Command::Parked(command) => parked::parked(command).await,
        Command::Pause(command) => pauses::pause(command).await,
        Command::Limit(command) => limits::limit(command).await,
        Command::Audit(command) => audit::audit(command).await,
        Command::Candidate(command) => import::candidate(command).await,
        Command::Codebase(command) => import::codebase(command).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn check_values_are_hidden(command: &clap::Command) {
        for argument in command.get_arguments() {
            assert!(
                argument.get_env().is_none() || argument.is_hide_env_values_set(),
                "--help of {} shows the value of {:?}",
                command.get_name(),
                argument.get_env()
            );
        }
        command.get_subcommands().for_each(check_values_are_hidden);
    }

    #[test]
    fn help_shows_no_values_of_the_environment() {
        check_values_are_hidden(&Cli::command());
    }
}
