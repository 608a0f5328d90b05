//! `config` and `check`: the settings in force, and whether they work.

use super::serve::ServeArgs;
use crate::{bootstrap, domain::redact::redact, settings};
use anyhow::Result;
use clap::Args;
use std::process::ExitCode;

/// Which settings to print, and how.
#[derive(Debug, Clone, Args)]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    settings: ServeArgs,
    /// Print the JSON schema of a settings file instead
    #[arg(long)]
    schema: bool,
}

/// Prints the settings in force, or the schema of all settings.
pub(super) fn config(args: ConfigArgs) -> Result<ExitCode> {
    if args.schema {
        outln!("{}", serde_json::to_string_pretty(&settings::schema()?)?);
        return Ok(ExitCode::SUCCESS);
    }
    let loaded = args.settings.load()?;
    for warning in &loaded.warnings {
        errln!("warning: {warning}");
    }
    for line in settings::lines(&loaded.layers)? {
        outln!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens every store and prints whether each is reachable.
pub(super) async fn check(args: ServeArgs) -> Result<ExitCode> {
    let loaded = args.load()?;
    let folders = bootstrap::make_private(&loaded.settings);
    for warning in loaded.warnings.iter().chain(&folders) {
        outln!("{:<12} {}", "warning", redact(warning));
    }
    outln!("{:<12} ok", "settings");
    let checks = bootstrap::check(&loaded.settings).await?;
    if let Some(kind) = bootstrap::database_kind(&loaded.settings).await? {
        outln!("{:<12} {kind}", "database");
    }
    for check in &checks {
        let unset = match check.name {
            "events" => loaded.settings.events.is_none(),
            "coordination" => loaded.settings.coordination.is_none(),
            // Of a process that serves; this one does not.
            "watcher" | "serving" => continue,
            _ => false,
        };
        let state = match &check.failure {
            Some(failure) => failure,
            None if unset => "not set",
            None => "ok",
        };
        outln!("{:<12} {state}", check.name);
    }
    let healthy = checks.iter().all(|check| check.failure.is_none());
    Ok(if healthy {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
