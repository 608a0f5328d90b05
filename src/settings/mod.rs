//! Settings are read in layers: built-in defaults, files, environment, flags. figment merges the layers into
//! [`raw`], the settings as they are written; [`from_raw`] checks and converts them into [`values`], what the
//! program works with.
//!
//! A new setting goes into `raw.rs` (documented: its JSON schema is made from there), `values.rs`,
//! `from_raw.rs` and `config/default.toml`; then `config/settings.schema.json` is renewed, as its test says.

mod defaults;
mod error;
mod from_raw;
mod janitor_conf;
mod origin;
mod raw;
mod schema;
mod show;
mod size;
mod stores;
mod validate;
mod values;

pub use error::SettingsError;
pub use schema::schema;
pub use show::lines;
pub use values::{
    FileStore, GcsCredentials, GcsSettings, GuardedHttpSettings, LogFormat, PollSettings,
    PostgresSettings, RequestLimits, S3Settings, Settings, StoreChoice,
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
    let mut warnings = vec![];
    let mut layers = Figment::from(Toml::string(DEFAULTS)).select(figment::Profile::Default);
    for file in files {
        let text = std::fs::read_to_string(file)
            .map_err(|e| SettingsError(format!("--config {}: {e}", file.display())))?;
        layers = if janitor_conf::is_janitor_conf(&text) {
            let (provider, unknown) = janitor_conf::JanitorConf::read(file, &text)?;
            warnings.extend(unknown);
            layers.merge(provider)
        } else {
            layers.merge(Toml::file_exact(file))
        };
    }
    let layers = layers.merge(Env::prefixed(PREFIX).split("__")).merge(flags);
    let raw: Raw = layers.extract().map_err(|e| SettingsError::from(&e))?;
    let settings = from_raw::settings(raw).map_err(|invalid| invalid_value(&layers, &invalid))?;
    Ok(Loaded {
        layers,
        settings,
        warnings,
    })
}

/// Says which value of which layer is invalid.
fn invalid_value(layers: &Figment, invalid: &Invalid) -> SettingsError {
    // The field may lie inside a list, where figment finds nothing; the value of the whole key is shown then.
    let key = invalid.field.split(['.', '[']).next().unwrap_or_default();
    let value = [invalid.field.as_str(), key]
        .iter()
        .find_map(|key| layers.find_value(key).ok());
    let shown = value.map(|value| show::value(&value)).unwrap_or_default();
    SettingsError(format!(
        "{}: {} (value {shown}, from {})",
        invalid.field,
        invalid.reason,
        origin::of_key(layers, key)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use figment::util::map;

    fn none() -> Flags {
        Flags(figment::value::Dict::new())
    }

    fn with(text: &str) -> Result<Loaded, SettingsError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        load(&[file.path().to_owned()], none())
    }

    #[test]
    fn every_shipped_file_loads() {
        for file in ["config/default.toml", "config/local.toml"] {
            let loaded = load(
                &[PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)],
                none(),
            )
            .unwrap();
            assert_eq!(loaded.settings.port, 9911, "{file}");
        }
    }

    #[test]
    fn later_layers_win() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, b"port = 1\npublic_port = 2\n").unwrap();
        let loaded = load(
            &[file.path().to_owned()],
            Flags(map! { "port".to_owned() => 3_u16.into() }),
        )
        .unwrap();
        assert_eq!((loaded.settings.port, loaded.settings.public_port), (3, 2));
    }

    #[test]
    fn errors_name_key_and_layer() {
        for (text, key) in [
            ("port = \"x\"", "port"),
            ("nonsense = 1", "nonsense"),
            ("store = \"tape:/dev/st0\"", "store"),
            ("store = \"mysql://u:secret@h/db\"", "store"),
            ("events = \"amqp://u:secret@h/db\"", "events"),
            ("artifacts = \"ftp://u:secret@h/db\"", "artifacts"),
            ("logs = \"gs://\"", "logs"),
            (
                "[postgres]\nmax_connections = 0\nstatement_timeout_seconds = 1",
                "postgres.max_connections",
            ),
            ("public_vcs_location = \"nowhere\"", "public_vcs_location"),
            ("[limits]\njson_body = \"many\"", "limits.json_body"),
            ("[[campaign]]\nname = \"X\"", "campaign"),
            ("run_timeout_minutes = 0", "run_timeout_minutes"),
            (
                "[publish_policies]\np = [{ role = \"main\", mode = \"shout\" }]",
                "publish_policies",
            ),
        ] {
            let error = with(text).map(|_| ()).unwrap_err().to_string();
            assert!(
                error.contains(key) && error.contains("from") && !error.contains("secret"),
                "{text}: {error}"
            );
        }
    }

    #[test]
    fn secrets_come_from_files() {
        let mut secret = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut secret, b"elsewhere\n").unwrap();
        let loaded = with(&format!(
            "store = \"sled:/data/{{file:{}}}\"",
            secret.path().display()
        ))
        .unwrap();
        assert_eq!(
            loaded.settings.store,
            StoreChoice::Sled("/data/elsewhere".into())
        );
        assert!(with("store = \"sled:{env:NO_SUCH_VARIABLE_HERE}\"").is_err());
    }

    #[test]
    fn the_examples_are_settings() {
        let secret = "{file:/etc/janitor-runner/database-password}";
        let production = include_str!("../../config/production.example.toml");
        assert!(production.contains(secret));
        let settings = with(&production.replace(secret, "geheim"))
            .unwrap()
            .settings;
        assert!(
            matches!(&settings.store, StoreChoice::Postgres(postgres) if postgres.url.ends_with("geheim@db.internal/janitor"))
        );
        assert_eq!(
            (
                settings.store.to_string().as_str(),
                settings.logs.to_string().as_str()
            ),
            (
                "Postgres, database janitor at db.internal",
                "gs://example-janitor-logs"
            )
        );
        assert_eq!(
            with(include_str!("../../examples/deploy/campaigns.toml"))
                .unwrap()
                .settings
                .coordinator
                .campaigns
                .campaigns
                .len(),
            1
        );
        let compose = include_str!("../../examples/deploy/compose.yaml");
        let variables = compose
            .lines()
            .filter_map(|line| line.trim().strip_prefix(PREFIX)?.split_once(": "));
        let lines: Vec<String> = variables
            .map(|(key, value)| format!("{} = {value:?}", key.to_lowercase()))
            .collect();
        assert_eq!(lines.len(), 7);
        assert!(matches!(
            with(&lines.join("\n")).unwrap().settings.store,
            StoreChoice::Postgres(_)
        ));
    }

    #[test]
    fn the_places_of_a_janitor_choose_the_stores() {
        let places = "database_location: 'postgresql://j@db/janitor'\nredis_location: 'redis://r/'\nartifact_location: 'gs://a/'\nlogs_location: 'https://s3.example/'\n";
        let settings = with(places).unwrap().settings;
        assert!(matches!(settings.store, StoreChoice::Postgres(_)));
        assert_eq!(
            (settings.events.as_deref(), settings.coordination.as_deref()),
            (Some("redis://r/"), Some("redis://r/"))
        );
        assert_eq!(settings.artifacts.to_string(), "gs://a");
        assert!(
            matches!(settings.logs, FileStore::S3(s3) if s3.bucket == "debian-janitor" && s3.endpoint.as_deref() == Some("https://s3.example/"))
        );
    }

    #[test]
    fn the_configuration_of_a_janitor_is_read() {
        let text = include_str!("../../tests/golden/campaigns.conf");
        let loaded = with(text).unwrap();
        let config = loaded.settings.coordinator;
        assert_eq!(
            config.committer.as_deref(),
            Some("Janitor Bot <janitor@example.com>")
        );
        assert_eq!(config.campaigns.campaigns.len(), 7);
        let full = config.campaigns.distribution("full").unwrap();
        assert_eq!(full.component, ["main", "contrib"]);
        assert_eq!(loaded.warnings, Vec::<String>::new());
    }

    #[test]
    fn unknown_fields_of_a_janitor_are_a_warning() {
        let text = "committer: 'A <a@b>' # x\nnovelty: 5\nstrange { a: [1, 2] b < c: \"}\" > }\norigin: 'x'\n\
                    campaign { name: \"aa\" command: \"x\" later_field: true generic_build {} merge_proposal { title: 't' } }";
        let loaded = with(text).unwrap();
        assert_eq!(loaded.warnings.len(), 3, "{:?}", loaded.warnings);
        assert_eq!(loaded.settings.coordinator.campaigns.campaigns.len(), 1);
        assert_eq!(
            loaded.settings.coordinator.committer.as_deref(),
            Some("A <a@b>")
        );
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        let deep = format!("campaign {}{}", "{ a ".repeat(100_000), "}".repeat(100_000));
        assert!(with(&deep).unwrap_err().to_string().contains("nest"));
        assert!(with("campaign { name: \"aa\"").is_err());
        assert!(with("committer: \"unfinished").is_err());
    }
}
