//! Who may touch what, as ARCHITECTURE.md says. Reads the sources; a room that touches what it may not is named.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// What only adapters and settings know.
const TECHNOLOGY: &[&str] = &[
    "axum",
    "sqlx",
    "sled::",
    "reqwest",
    "redis",
    "figment",
    "std::fs",
    "tokio::fs",
    "std::env",
    "uuid::",
];
/// What lies outside the use cases.
const OUTSIDE: &[&str] = &[
    "crate::adapters",
    "crate::settings",
    "crate::bootstrap",
    "crate::worker",
    "crate::cli",
];
/// What makes a rule depend on when and where it runs.
const EFFECTS: &[&str] = &[
    "tokio",
    "async fn",
    "async_trait",
    ".await",
    "Utc::now",
    "SystemTime",
    "Instant::now",
    "tracing",
    "crate::ports",
    "crate::services",
];

/// A room, and what its code must not mention.
const RULES: &[(&str, &[&[&str]])] = &[
    ("src/domain", &[TECHNOLOGY, OUTSIDE, EFFECTS]),
    ("src/ports", &[TECHNOLOGY, OUTSIDE, &["crate::services"]]),
    (
        "src/services",
        &[TECHNOLOGY, OUTSIDE, &["Utc::now", "StatusCode"]],
    ),
    (
        "src/adapters/http",
        &[&[
            "sled",
            "adapters::embedded",
            "crate::settings",
            "crate::bootstrap",
            "crate::worker",
            "crate::cli",
        ]],
    ),
    (
        "src/adapters/embedded",
        &[&[
            "sled::",
            "axum",
            "crate::services",
            "crate::settings",
            "crate::bootstrap",
            "adapters::http",
        ]],
    ),
    (
        "src/adapters/postgres",
        &[&[
            "axum",
            "crate::services",
            "crate::settings",
            "crate::bootstrap",
            "adapters::embedded",
            "adapters::http",
            "adapters::local",
            "adapters::objects",
            "adapters::redis",
        ]],
    ),
    (
        "src/adapters/redis",
        &[&[
            "axum",
            "crate::services",
            "crate::settings",
            "crate::bootstrap",
            "sqlx",
        ]],
    ),
    (
        "src/adapters/objects",
        &[&[
            "axum",
            "crate::services",
            "crate::settings",
            "crate::bootstrap",
            "adapters::http",
            "gcloud_storage",
            "object_store::",
        ]],
    ),
    (
        "src/adapters/backup",
        &[&[
            "axum",
            "crate::services",
            "crate::settings",
            "crate::bootstrap",
            "adapters::http",
        ]],
    ),
    (
        "src/adapters/local",
        &[&[
            "axum",
            "crate::services",
            "crate::settings",
            "crate::bootstrap",
            "adapters::http",
        ]],
    ),
    (
        "src/worker",
        &[&[
            "crate::services",
            "crate::settings",
            "crate::bootstrap",
            "crate::cli",
            "ArtifactStore",
            "QueueStore",
            "adapters::embedded",
            "adapters::http",
        ]],
    ),
    (
        "src/settings",
        &[&[
            "crate::bootstrap",
            "crate::worker",
            "crate::cli",
            "adapters::embedded",
            "adapters::sled",
        ]],
    ),
];

/// Names of concrete adapters: only `bootstrap.rs` and the adapters themselves know them.
const CONCRETE: &[&str] = &[
    "SledKv",
    "MemoryKv",
    "Embedded::open",
    "Postgres::open",
    "LocalArtifacts",
    "LocalLogs",
    "GcsBucket",
    "S3Bucket",
    "FallbackArtifacts",
    "FallbackLogs",
    "InProcessEvents",
    "RedisEvents",
    "MirroredStores",
    "NoBackchannel",
    "Backchannels::new",
    "GuardedClient::new",
    "NoVcs",
    "CachedCredentials",
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

fn all(folder: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
        &mut found,
    );
    assert!(!found.is_empty(), "{folder} has no sources");
    found
}

/// The code of a file without its comments and unit tests.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]\n").next().unwrap().to_owned();
    let without_comment = |line: &str| line.split("//").next().unwrap().to_owned();
    code.lines()
        .map(without_comment)
        .enumerate()
        .map(|(number, line)| (number + 1, line))
        .collect()
}

fn mentions(folder: &str, words: &[&str]) -> Vec<String> {
    let mut broken = vec![];
    for path in all(folder) {
        for (number, line) in code(&path) {
            for word in words.iter().filter(|word| line.contains(**word)) {
                broken.push(format!("{}:{number} mentions {word}", path.display()));
            }
        }
    }
    broken
}

#[test]
fn rooms_touch_only_what_they_may() {
    let broken: Vec<String> = RULES
        .iter()
        .flat_map(|(folder, lists)| mentions(folder, &lists.concat()))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_bootstrap_knows_concrete_adapters() {
    let elsewhere = [
        "src/domain",
        "src/ports",
        "src/services",
        "src/settings",
        "src/cli",
        "src/worker",
        "src/adapters/http",
    ];
    let broken: Vec<String> = elsewhere
        .iter()
        .flat_map(|folder| mentions(folder, CONCRETE))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn files_stay_readable() {
    let long: Vec<String> = all("src")
        .into_iter()
        .filter_map(|path| {
            let lines = code(&path).len();
            (lines > 500).then(|| format!("{} has {lines} lines", path.display()))
        })
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// The rules themselves can fail: a file that breaks one is found.
#[test]
fn a_broken_rule_is_found() {
    assert!(!mentions("src/adapters/sled", &["sled::Config"]).is_empty());
    assert!(mentions("src/adapters/sled", &["no such words"]).is_empty());
}
