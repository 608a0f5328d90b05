//! `migrate`: the tables of a Postgres database.

use super::serve::ServeArgs;
use crate::bootstrap;
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;

/// Which database, and whether only to look.
#[derive(Debug, Clone, Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    settings: ServeArgs,
    /// Say what would be done, and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Brings the tables up to date, or says what that would take.
pub(super) async fn migrate(args: MigrateArgs) -> Result<ExitCode> {
    let loaded = args.settings.load()?;
    let plan = bootstrap::migrate(&loaded.settings, args.dry_run).await?;
    if !plan.problems.is_empty() {
        println!("The database cannot be used as it is; nothing was changed:");
        plan.problems
            .iter()
            .for_each(|problem| println!("  {problem}"));
        return Ok(ExitCode::FAILURE);
    }
    match (plan.steps.is_empty(), args.dry_run) {
        (true, _) => println!("The database is up to date."),
        (false, true) => println!("Would apply:"),
        (false, false) => println!("Applied:"),
    }
    plan.steps.iter().for_each(|step| println!("  {step}"));
    Ok(ExitCode::SUCCESS)
}
