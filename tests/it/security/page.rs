//! The pages of `docs` name tests that exist.

use crate::support::process::root;
use std::{fs, path::Path};

/// Adds the text of all Rust files below a folder.
fn sources(folder: &Path, text: &mut String) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            text.push_str(&fs::read_to_string(path).unwrap());
        }
    }
}

fn all_sources() -> String {
    let mut all = String::new();
    sources(&root().join("tests/it"), &mut all);
    sources(&root().join("src"), &mut all);
    all
}

/// Returns whether a name is a sentence, as those of tests are and few others.
fn is_sentence(name: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_metric = name.starts_with("janitor_runner_");
    name.chars().all(is_word) && name.matches('_').count() >= 4 && !is_metric
}

#[test]
fn tests_named_in_any_page_exist() {
    let all = all_sources();
    let (mut named, mut missing) = (0, vec![]);
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let path = entry.unwrap().path();
        let page = fs::read_to_string(&path).unwrap_or_default();
        for line in page.lines() {
            for name in line.split('`').skip(1).step_by(2) {
                let last = name.rsplit("::").next().unwrap();
                if is_sentence(last) {
                    named += 1;
                    if !all.contains(&format!("fn {last}(")) {
                        missing.push(format!("{}: {name}", path.display()));
                    }
                }
            }
        }
    }
    assert!(named > 50, "{named} names were found");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn tests_of_the_page_exist() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let all = all_sources();
    let (mut named, mut missing) = (0, vec![]);
    for row in page.lines().filter(|line| line.starts_with("| ")) {
        let Some(cell) = row.trim_end_matches('|').rsplit('|').next() else {
            continue;
        };
        // Every second part is between backticks.
        for name in cell.split('`').skip(1).step_by(2) {
            let last = name.rsplit("::").next().unwrap();
            let is_path = name.contains('/') || name.contains(' ') || name.contains('…');
            let is_there = all.contains(&format!("fn {last}("))
                || all.contains(&format!("mod {last};"))
                || last == "tests";
            named += 1;
            if !is_path && !is_there {
                missing.push(name.to_owned());
            }
        }
    }
    assert!(named > 50, "{named} names were found");
    assert!(missing.is_empty(), "{missing:?}");
}
