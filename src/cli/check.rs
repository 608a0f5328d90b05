//! `config` and `check`: what is set, and whether it works.

use super::serve::ServeArgs;
use crate::{bootstrap, settings};
use anyhow::Result;
use std::process::ExitCode;

/// Prints the settings in force.
pub(super) fn config(args: ServeArgs) -> Result<ExitCode> {
    let loaded = args.load()?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    for line in settings::lines(&loaded.layers)? {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

/// Opens every store and says what works.
pub(super) async fn check(args: ServeArgs) -> Result<ExitCode> {
    let loaded = args.load()?;
    for warning in &loaded.warnings {
        println!("{:<12} {warning}", "warning");
    }
    println!("{:<12} ok", "settings");
    let checks = bootstrap::check(&loaded.settings).await?;
    for check in &checks {
        println!(
            "{:<12} {}",
            check.name,
            check.failure.as_deref().unwrap_or("ok")
        );
    }
    let well = checks.iter().all(|check| check.failure.is_none());
    Ok(if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
