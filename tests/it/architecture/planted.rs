//! Each rule fails on a violation that is planted for it, and on nothing beside it.

use super::{
    rules,
    source::{Source, Sources},
    words,
};

/// A crate of these files, beside some that others may refer to.
fn planted(files: &[(&'static str, &'static str)]) -> Sources {
    let usual = [
        (
            "src/lib.rs",
            "pub mod adapters; pub mod domain; pub mod ports;",
        ),
        ("src/adapters/mod.rs", "pub mod sled; pub mod postgres;"),
        ("src/adapters/sled/mod.rs", "pub struct SledKv;"),
        ("src/adapters/postgres/mod.rs", "pub struct Postgres;"),
        ("src/domain/mod.rs", "pub mod run;"),
        ("src/domain/run.rs", "pub struct Run;"),
        ("src/ports/mod.rs", "pub mod clock; pub use clock::Clock;"),
        ("src/ports/clock.rs", "pub trait Clock {}"),
    ];
    Sources::parse(usual.iter().chain(files).copied())
}

fn paths(text: &str) -> Vec<String> {
    let source = Source::parse("src/services/assign.rs", text);
    source.paths.iter().map(|path| path.join("::")).collect()
}

#[test]
fn use_trees_are_expanded() {
    let nested = "use crate::{adapters::{sled::SledKv, postgres}, domain::run::{self, Run as R}};";
    assert_eq!(
        paths(nested),
        [
            "crate::adapters::postgres",
            "crate::adapters::sled::SledKv",
            "crate::domain::run",
            "crate::domain::run::Run",
        ]
    );
    assert_eq!(paths("use super::watch::*;"), ["crate::services::watch"]);
    assert_eq!(
        paths("use super::super::ports as p; fn f(_: p::Clock) {}"),
        ["crate::ports", "crate::ports::Clock"]
    );
    assert_eq!(paths("use ::redis::Client;"), ["redis::Client"]);
}

#[test]
fn inline_paths_are_read() {
    for code in [
        "fn f() { crate::adapters::x::Y::new(); }",
        "fn f(_: &crate::adapters::x::Y) {}",
        "fn f() { vec![crate::adapters::x::Y]; }",
        "struct S { field: Option<crate::adapters::x::Y> }",
        "impl crate::adapters::x::Y for S {}",
        "#[derive(crate::adapters::x::Y)] struct S;",
    ] {
        let found = paths(code);
        assert!(
            found
                .iter()
                .any(|path| path.starts_with("crate::adapters::x::Y")),
            "{code}: {found:?}"
        );
    }
    assert_eq!(
        paths("fn f() { println!(\"crate::adapters::x\"); }"),
        [""; 0]
    );
}

#[test]
fn unit_tests_are_skipped_and_code_behind_them_is_not() {
    let code = "
        #[cfg(test)]
        mod tests { use crate::adapters::x::Y; }
        #[cfg(all(test, unix))]
        fn only_for_tests() { sled::open(); }
        #[cfg(not(test))]
        use crate::ports::Clock;
        use crate::domain::run::Run;";
    assert_eq!(
        paths(code),
        ["crate::domain::run::Run", "crate::ports::Clock"]
    );
    let sources = planted(&[
        ("src/domain/queue/mod.rs", "#[cfg(test)] mod tests;"),
        ("src/domain/queue/tests.rs", "use tokio::spawn;"),
    ]);
    assert_eq!(rules::layers(&sources), [""; 0]);
}

#[test]
fn forbidden_dependency_of_each_layer_is_found() {
    for (file, code) in [
        ("src/domain/x.rs", "use crate::ports::Clock;"),
        ("src/domain/x.rs", "use reqwest::Client;"),
        ("src/ports/x.rs", "use crate::{adapters::{sled::SledKv}};"),
        ("src/ports/x.rs", "fn f() { sqlx::query(\"\"); }"),
        ("src/services/x.rs", "use crate::adapters::postgres;"),
        ("src/services/x.rs", "use axum::http::StatusCode;"),
        (
            "src/services/x.rs",
            "use chrono::Utc; fn f() { Utc::now(); }",
        ),
        ("src/metrics/x.rs", "use crate::ports::Clock;"),
        ("src/adapters/wire/x.rs", "use super::super::sled::SledKv;"),
        (
            "src/adapters/http/x.rs",
            "use super::super::postgres::Postgres;",
        ),
        ("src/adapters/embedded/x.rs", "use sled::Db;"),
        ("src/adapters/local/x.rs", "use redb::Database;"),
        (
            "src/adapters/postgres/x.rs",
            "use crate::adapters::sled::SledKv;",
        ),
        (
            "src/adapters/redis/x.rs",
            "use crate::adapters::postgres::Postgres;",
        ),
        (
            "src/adapters/objects/x.rs",
            "use gcloud_storage::client::Client;",
        ),
        ("src/adapters/local/x.rs", "use axum::Router;"),
        (
            "src/settings/x.rs",
            "use crate::adapters::postgres::Postgres;",
        ),
        ("src/worker/x.rs", "use crate::adapters::sled::SledKv;"),
    ] {
        let broken = rules::layers(&planted(&[(file, code)]));
        assert_eq!(broken.len(), 1, "{file}: {code}: {broken:?}");
    }
}

#[test]
fn allowed_dependencies_are_not_reported() {
    let sources = planted(&[
        (
            "src/services/x.rs",
            "use crate::{domain::run::Run, ports::Clock}; use tokio::spawn;",
        ),
        (
            "src/adapters/postgres/x.rs",
            "use super::Postgres; use sqlx::PgPool;",
        ),
        (
            "src/bootstrap/mod.rs",
            "use crate::adapters::{postgres::Postgres, sled::SledKv};",
        ),
    ]);
    assert_eq!(rules::layers(&sources), [""; 0]);
    assert_eq!(rules::concrete_adapters(&sources), [""; 0]);
    assert_eq!(rules::cycles(&sources), [""; 0]);
}

#[test]
fn effects_in_the_domain_are_found() {
    for code in [
        "pub async fn f() {}",
        "use tokio::sync::Mutex;",
        "fn f() { tracing::info!(\"x\"); }",
        "use chrono::Utc; fn f() { Utc::now(); }",
        "use std::time::SystemTime;",
        "fn f() { std::env::var(\"x\"); }",
    ] {
        let broken = rules::effects_in_domain(&planted(&[("src/domain/x.rs", code)]));
        assert!(!broken.is_empty(), "{code}");
    }
    assert_eq!(rules::effects_in_domain(&planted(&[])), [""; 0]);
}

#[test]
fn concrete_adapter_outside_of_bootstrap_is_found() {
    for file in [
        "src/services/x.rs",
        "src/adapters/http/x.rs",
        "src/cli/x.rs",
    ] {
        let code = "use crate::adapters::sled::SledKv;";
        assert_eq!(
            rules::concrete_adapters(&planted(&[(file, code)])),
            [format!("{file}: crate::adapters::sled::SledKv")]
        );
    }
}

#[test]
fn cycle_is_found_through_reexports_and_folders() {
    let sources = planted(&[
        ("src/domain/mod.rs", "pub mod a; pub mod b; pub use a::A;"),
        ("src/domain/a.rs", "pub struct A; use super::b::B;"),
        ("src/domain/b/mod.rs", "mod inner; pub struct B;"),
        ("src/domain/b/inner.rs", "use crate::domain::A;"),
    ]);
    assert_eq!(
        rules::cycles(&sources),
        ["domain::a -> domain::b -> domain::a"]
    );
}

#[test]
fn long_file_is_found() {
    let file = |lines: usize| ("src/x.rs".to_owned(), "\n".repeat(lines));
    assert_eq!(rules::long_files(&[file(rules::MAX_LINES)]), [""; 0]);
    assert_eq!(rules::long_files(&[file(rules::MAX_LINES + 1)]).len(), 1);
}

#[test]
fn replaced_words_are_found_in_identifiers_and_prose() {
    for line in [
        "/// Answers the run.",
        "let wish = 1;",
        "struct WaitingRoom;",
        "// An item is handed out.",
        "const MOST_ITEMS: usize = 1;",
        "fn let_go() {}",
        "run.given_up_by(wish)",
    ] {
        let found = words::found(&[("src/x.rs".to_owned(), line.to_owned())]);
        assert!(!found.is_empty(), "{line}");
    }
    for line in [
        "run.given_up = true;",
        "let newsletter = foretell;",
        "const ALMOST_ALL: u8 = 1;",
    ] {
        let found = words::found(&[("src/x.rs".to_owned(), line.to_owned())]);
        assert_eq!(found, [""; 0], "{line}");
    }
}
