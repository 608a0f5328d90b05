//! `migrate`: the tables of a Postgres database.

use super::serve::ServeArgs;
use crate::bootstrap;
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;

/// Which database to migrate, and whether to change it.
#[derive(Debug, Clone, Args)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    settings: ServeArgs,
    /// Print what would be done, without changing anything
    #[arg(long)]
    dry_run: bool,
}

/// Migrates the tables, or prints what that would do.
pub(super) async fn migrate(args: MigrateArgs) -> Result<ExitCode> {
    let loaded = args.settings.load()?;
    let plan = bootstrap::migrate(&loaded.settings, args.dry_run).await?;
    if !plan.problems.is_empty() {
        outln!("The database cannot be used as it is; nothing was changed:");
        plan.problems
            .iter()
            .for_each(|problem| outln!("  {problem}"));
        return Ok(ExitCode::FAILURE);
    }
    match (plan.steps.is_empty(), args.dry_run) {
        (true, _) => outln!("The database is up to date."),
        (false, true) => outln!("Would apply:"),
        (false, false) => outln!("Applied:"),
    }
    plan.steps.iter().for_each(|step| outln!("  {step}"));
    if !args.dry_run
        && !plan.steps.is_empty()
        && let Err(error) = bootstrap::record_migration(&loaded.settings, &plan).await
    {
        errln!("warning: the migration is not in the audit log: {error:#}");
    }
    Ok(ExitCode::SUCCESS)
}
