//! Settings are read in layers: built-in defaults, files, environment, flags. figment merges the
//! layers into `raw`, the settings as they are written; `from_raw` checks and converts them
//! into `values`, what the program works with.
//!
//! A new setting goes into `raw.rs` (documented: its JSON schema is made from there), `values.rs`,
//! `from_raw.rs` and `config/default.toml`; then `config/settings.schema.json` is renewed, as its
//! test says.

mod admin;
mod defaults;
mod error;
mod exposure;
mod from_raw;
mod janitor_conf;
mod layered;
mod origin;
mod raw;
mod raw_admin;
mod raw_vcs;
mod schema;
mod secrets;
mod show;
mod size;
mod stores;
mod validate;
mod values;
mod vcs;

pub use error::SettingsError;
pub use schema::schema;
pub use show::lines;
pub use values::{
    AdminSettings, ConnectionSettings, FileStore, GcsCredentials, GcsSettings, GuardedHttpSettings,
    ListenAddress, LogFormat, PollSettings, PostgresSettings, RequestLimits, S3Credentials,
    S3Settings, Settings, StoreChoice, TlsSettings, VcsLogin, VcsSettings,
};

use crate::domain::Invalid;
use defaults::DEFAULTS;
use figment::{
    Figment, Metadata, Provider,
    providers::{Env, Format, Serialized, Toml},
};
use raw::Raw;
use std::path::PathBuf;

/// The prefix of the environment variables that are settings.
const PREFIX: &str = "JANITOR_RUNNER_";

/// The merged layers, and the settings that they make.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The merged layers, which know where each key came from.
    pub layers: Figment,
    /// What the program works with.
    pub settings: Settings,
    /// What an operator should know, although nothing is wrong with it.
    pub warnings: Vec<String>,
}

/// The flags of the command line, as a layer of their own.
pub struct Flags(pub figment::value::Dict);

impl Provider for Flags {
    fn metadata(&self) -> Metadata {
        Metadata::named("command line")
    }

    fn data(
        &self,
    ) -> Result<figment::value::Map<figment::Profile, figment::value::Dict>, figment::Error> {
        Serialized::defaults(&self.0).data()
    }
}

/// Merges the layers (defaults, each file in turn, the environment, flags) and checks the result.
///
/// # Errors
///
/// Returns an error that names the file that cannot be read, or each key that cannot be used.
pub fn load(files: &[PathBuf], flags: Flags) -> Result<Loaded, SettingsError> {
    let (mut warnings, mut read) = (vec![], vec![]);
    let mut layers = Figment::from(Toml::string(DEFAULTS)).select(figment::Profile::Default);
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|e| SettingsError(format!("--config {}: {e}", file.display())))?;
        layers = if janitor_conf::is_janitor_conf(&text) {
            let (provider, unknown) = janitor_conf::JanitorConf::read(file, &text)?;
            warnings.extend(unknown);
            read.push((file.clone(), table(&Figment::from(&provider))?));
            layers.merge(provider)
        } else {
            text.parse::<toml::Table>()
                .map_err(|error| SettingsError::not_toml(file, &text, &error))?;
            read.push((file.clone(), table(&Figment::from(Toml::string(&text)))?));
            layers.merge(Toml::file_exact(file))
        };
    }
    let layers = layers.merge(Env::prefixed(PREFIX).split("__")).merge(flags);
    warnings.extend(exposure::warnings(&read, &layers));
    let raw: Raw = layers.extract().map_err(|e| SettingsError::from(&e))?;
    let settings = from_raw::settings(raw).map_err(|invalid| invalid_value(&layers, &invalid))?;
    warnings.extend(admin::warnings(&settings));
    Ok(Loaded {
        layers,
        settings,
        warnings,
    })
}

/// Returns the settings of one layer.
fn table(layer: &Figment) -> Result<figment::value::Dict, SettingsError> {
    layer.extract().map_err(|error| SettingsError::from(&error))
}

/// Says which value of which layer is invalid.
fn invalid_value(layers: &Figment, invalid: &Invalid) -> SettingsError {
    // The field may lie inside a list, where figment finds nothing; the value of the whole key is
    // shown then.
    let key = invalid.field.split(['.', '[']).next().unwrap_or_default();
    let value = [invalid.field.as_str(), key]
        .iter()
        .find_map(|key| layers.find_value(key).ok())
        // What is wrong with a URL may be that its password is where something else should be.
        .filter(|_| !show::may_hold_secret(&invalid.field));
    let shown = value
        .map(|value| format!("value {}, ", show::value(&value)))
        .unwrap_or_default();
    SettingsError(format!(
        "{}: {} ({shown}from {})",
        invalid.field,
        invalid.reason,
        origin::of_key(layers, key)
    ))
}

#[cfg(test)]
mod tests;
