//! `token add`: makes tokens for the admin API.

use super::output::print_json;
use crate::{adapters::clock::RandomIds, domain::access::Role, ports::Ids};
use anyhow::{Context, Result, ensure};
use clap::Subcommand;
use figment::{
    Figment,
    providers::{Format, Toml},
};
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{
    fs::OpenOptions,
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Tokens of the admin API.
#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token, which is shown once, and the entry with its hash for the settings
    Add {
        /// Name of who gets the token, for the audit log
        name: String,
        /// What the token is good for: viewer (reads), operator (also changes the queue and runs)
        /// or admin (also manages workers)
        #[arg(long)]
        role: Role,
        /// Settings file (TOML) to append the entry to, rather than printing it
        #[arg(long)]
        append_to: Option<PathBuf>,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
}

/// Makes a token of two random UUIDs, which have 244 random bits.
fn make_token(ids: &impl Ids) -> String {
    format!("jrt_{}{}", ids.fresh(), ids.fresh()).replace('-', "")
}

/// Returns the hash of a token, as the settings have it.
fn hash(token: &str) -> String {
    let hash = Sha256::digest(token.as_bytes());
    let digits: Vec<String> = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{}", digits.concat())
}

/// Returns the names of the tokens in a settings file.
fn names_in(path: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    let settings = Figment::from(Toml::file_exact(path));
    if settings.find_value("admin.token").is_err() {
        return Ok(vec![]);
    }
    let tokens: Vec<Named> = settings.extract_inner("admin.token")?;
    Ok(tokens.into_iter().map(|token| token.name).collect())
}

pub(super) fn token(command: TokenCommand) -> Result<ExitCode> {
    let TokenCommand::Add {
        name,
        role,
        append_to,
        json,
    } = command;
    ensure!(
        !name.is_empty() && !name.chars().any(char::is_control),
        "NAME must have characters, and no control characters"
    );
    let token = make_token(&RandomIds);
    let secret = hash(&token);
    // Without control characters, a string of JSON is one of TOML.
    let entry = format!(
        "[[admin.token]]\nname = {}\nrole = \"{role}\"\nsecret = \"{secret}\"\n",
        json!(name)
    );
    if let Some(path) = &append_to {
        ensure!(
            !names_in(path)?.contains(&name),
            "{} has a token of {name} already",
            path.display()
        );
        let mut file = OpenOptions::new()
            .append(true)
            .open(path)
            .with_context(|| path.display().to_string())?;
        file.write_all(format!("\n{entry}").as_bytes())?;
    }
    if json {
        let made = json!({ "name": name, "role": role.name(), "token": token, "secret": secret });
        return print_json(&made);
    }
    outln!("token of {name}, shown this once: {token}");
    match append_to {
        Some(path) => outln!(
            "its hash is in {}; restart the service to use it",
            path.display()
        ),
        None => outln!("add this to the settings, and restart the service:\n\n{entry}"),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_differ() {
        let (first, second) = (make_token(&RandomIds), make_token(&RandomIds));
        assert_eq!(first.len(), 68);
        assert_ne!(first, second);
        assert_eq!(
            hash("abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
