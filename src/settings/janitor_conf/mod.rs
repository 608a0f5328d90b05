//! A Janitor's `janitor.conf`: protobuf text format, shared with the other services of a
//! deployment.

mod scan;

use super::error::SettingsError;
use figment::{
    Metadata, Profile, Provider,
    value::{Dict, Map, Value},
};
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use std::path::{Path, PathBuf};

const SCHEMA: &str = include_str!("janitor.proto");
const SCHEMA_NAME: &str = "janitor.proto";
/// The mark that some editors write at the start of a file.
const BOM: char = '\u{feff}';
/// Fields that only other services of the Janitor read; they are ignored without a warning.
const FIELDS_OF_OTHER_SERVICES: [&str; 8] = [
    "origin",
    "oauth2_provider",
    "zipkin_address",
    "bugtracker",
    "apt_repository",
    "merge_proposal",
    "chroot_alias",
    "extra",
];

/// The settings of a `janitor.conf`.
pub(super) struct JanitorConf {
    path: PathBuf,
    settings: Dict,
}

/// Removes blanks, empty lines and comments from the start.
fn skip_comments(mut text: &str) -> &str {
    loop {
        text = text.trim_start();
        match text.strip_prefix('#') {
            Some(comment) => text = comment.split_once('\n').map_or("", |(_, rest)| rest),
            None => return text,
        }
    }
}

/// Returns whether a text is a `janitor.conf` rather than TOML: its first word is followed by `:`,
/// `{` or `<`, maybe on another line.
pub(super) fn is_janitor_conf(text: &str) -> bool {
    let first = skip_comments(text.trim_start_matches(BOM));
    let after = first.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '_');
    after.len() < first.len() && skip_comments(after).starts_with([':', '{', '<'])
}

fn schema() -> Result<MessageDescriptor, SettingsError> {
    let wrong = |e: String| SettingsError(format!("the schema of janitor.conf: {e}"));
    let file =
        protox::file::File::from_source(SCHEMA_NAME, SCHEMA).map_err(|e| wrong(e.to_string()))?;
    let mut compiler = protox::Compiler::with_file_resolver(OneFile(file));
    compiler
        .open_file(SCHEMA_NAME)
        .map_err(|e| wrong(e.to_string()))?;
    let pool = DescriptorPool::from_file_descriptor_set(compiler.file_descriptor_set())
        .map_err(|e| wrong(e.to_string()))?;
    pool.get_message_by_name("janitor.Config")
        .ok_or_else(|| wrong("it has no message Config".into()))
}

/// Resolves the schema's own name only: the schema imports nothing.
struct OneFile(protox::file::File);

impl protox::file::FileResolver for OneFile {
    fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
        if name == SCHEMA_NAME {
            Ok(self.0.clone())
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

impl JanitorConf {
    /// Parses a `janitor.conf`; also returns warnings, one for each unknown field.
    ///
    /// # Errors
    ///
    /// Returns an error that names the file when the text is not in protobuf's text format.
    pub(super) fn read(path: &Path, text: &str) -> Result<(Self, Vec<String>), SettingsError> {
        let wrong = |what: String| SettingsError(format!("{}: {what}", path.display()));
        let (text, schema) = (text.trim_start_matches(BOM), schema()?);
        let known = scan::known_fields(text, &schema, &FIELDS_OF_OTHER_SERVICES).map_err(wrong)?;
        // What was found instead may be a secret, and is left out.
        let unread = |e: &dyn std::error::Error| {
            let message = e.to_string();
            let expected = message.split(", but ").next().unwrap_or_default();
            wrong(format!("{expected}, but found something else"))
        };
        let message =
            DynamicMessage::parse_text_format(schema, &known.text).map_err(|e| unread(&e))?;
        let mut settings = Dict::new();
        for (field, value) in dict(&message) {
            match setting_keys(&field) {
                Some(names) => {
                    settings.extend(names.iter().map(|name| ((*name).to_owned(), value.clone())));
                }
                None => {
                    settings.insert(field, value);
                }
            }
        }
        let warnings = known.unknown.into_iter().map(|field| {
            format!(
                "{}: the field {field} is not known and ignored",
                path.display()
            )
        });
        Ok((
            Self {
                path: path.to_owned(),
                settings,
            },
            warnings.collect(),
        ))
    }
}

/// Returns the keys that a field sets, where they are called otherwise than the field.
fn setting_keys(field: &str) -> Option<&'static [&'static str]> {
    match field {
        "logs_location" => Some(&["logs"]),
        "artifact_location" => Some(&["artifacts"]),
        "database_location" => Some(&["store"]),
        // The directories of the branch store's own files, which only the services that serve them
        // need.
        "git_location" | "bzr_location" => Some(&[]),
        "redis_location" => Some(&["coordination", "events"]),
        _ => None,
    }
}

fn dict(message: &DynamicMessage) -> Dict {
    message
        .fields()
        .map(|(field, value)| (field.name().to_owned(), plain(value)))
        .collect()
}

fn plain(value: &prost_reflect::Value) -> Value {
    match value {
        prost_reflect::Value::Bool(value) => Value::from(*value),
        prost_reflect::Value::I32(value) => Value::from(*value),
        prost_reflect::Value::String(value) => Value::from(value.clone()),
        prost_reflect::Value::Message(message) => Value::from(dict(message)),
        prost_reflect::Value::List(list) => Value::from(list.iter().map(plain).collect::<Vec<_>>()),
        other => Value::from(other.to_string()),
    }
}

impl Provider for JanitorConf {
    fn metadata(&self) -> Metadata {
        Metadata::from("janitor.conf", self.path.as_path())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.settings.clone())]))
    }
}
