//! Files with secrets that other users of the machine may read.

use super::{secrets, show};
use crate::domain::redact::redact;
use figment::{
    Figment,
    value::{Dict, Value},
};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The permissions of other users: to read or write a file, and to enter a folder.
const OTHERS_READ_OR_WRITE: u32 = 0o006;
const OTHERS_ENTER: u32 = 0o001;

fn mode(path: &Path) -> Option<u32> {
    Some(fs::metadata(path).ok()?.permissions().mode())
}

/// Returns whether every user of the machine may read or write a file: it says so, and so does each
/// folder on the way to it.
fn is_exposed(file: &Path) -> bool {
    let Ok(file) = file.canonicalize() else {
        return false;
    };
    let is_open = |path: &Path, bits: u32| mode(path).is_some_and(|mode| mode & bits != 0);
    is_open(&file, OTHERS_READ_OR_WRITE)
        && file
            .ancestors()
            .skip(1)
            .all(|folder| is_open(folder, OTHERS_ENTER))
}

/// Calls `visit` with the full key of each text in a table.
fn each_text(prefix: &str, table: &Dict, visit: &mut impl FnMut(&str, &str)) {
    for (key, value) in table {
        let key = if prefix.is_empty() {
            key.clone()
        } else {
            format!("{prefix}.{key}")
        };
        each_text_of(&key, value, visit);
    }
}

fn each_text_of(key: &str, value: &Value, visit: &mut impl FnMut(&str, &str)) {
    match value {
        Value::String(_, text) => visit(key, text),
        Value::Dict(_, table) => each_text(key, table, visit),
        Value::Array(_, list) => list
            .iter()
            .for_each(|value| each_text_of(key, value, visit)),
        _ => {}
    }
}

/// Returns whether a value has a secret written out in it, rather than the place of one.
fn has_secret(key: &str, text: &str) -> bool {
    let written = secrets::without_placeholders(text);
    // Nobody finds a token by its hash.
    if key == "admin.token.secret" {
        return false;
    }
    if show::is_secret(key) {
        return !written.is_empty();
    }
    let Some((_, rest)) = written.split_once("://") else {
        return redact(&written) != written;
    };
    let password = rest
        .rsplit_once('@')
        .and_then(|(login, _)| login.split_once(':'));
    let query = rest.split_once('?').map_or("", |(_, query)| query);
    password.is_some_and(|(_, password)| !password.is_empty()) || redact(query) != query
}

/// Returns a warning for each file with secrets that every user of the machine may read or write:
/// settings files, and those that settings name.
pub(super) fn warnings(files: &[(PathBuf, Dict)], layers: &Figment) -> Vec<String> {
    let mut named = BTreeSet::new();
    let merged = layers.extract::<Dict>().unwrap_or_default();
    each_text("", &merged, &mut |key, text| {
        named.extend(secrets::files_in(text).map(PathBuf::from));
        if key == "gcs.credentials" && !["default", "anonymous"].contains(&text) {
            named.insert(text.into());
        }
    });
    let with_secrets = files.iter().filter(|(_, settings)| {
        let mut found = false;
        each_text("", settings, &mut |key, text| {
            found |= has_secret(key, text);
        });
        found
    });
    named.extend(with_secrets.map(|(file, _)| file.clone()));
    named
        .into_iter()
        .filter(|file| is_exposed(file))
        .map(|file| {
            let mode = mode(&file).unwrap_or_default() & 0o777;
            format!(
                "{} has secrets, and its mode {mode:o} lets every user of this machine at them; \
                 chmod o-rw",
                file.display()
            )
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_secrets_are_recognized() {
        for (key, text, expected) in [
            ("store", "postgresql://u:geheim@h/db", true),
            ("store", "postgresql://u:{file:/run/p}@h/db", false),
            ("store", "{env:STORE}", false),
            ("store", "postgresql://u@h/db", false),
            ("store", "postgresql:///db?user=u&password=p", true),
            ("store", "postgresql:///db?sslmode=require", false),
            ("store", "sled:./data/db", false),
            ("s3.secret_access_key", "geheim", true),
            ("s3.secret_access_key", "{file:/run/key}", false),
            ("logs", "./data/logs", false),
        ] {
            assert_eq!(has_secret(key, text), expected, "{key} = {text}");
        }
    }
}
