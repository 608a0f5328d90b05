//! `docs/security.md` names tests that exist.

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

#[test]
fn tests_of_the_page_exist() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let mut all = String::new();
    sources(&root().join("tests/it"), &mut all);
    sources(&root().join("src"), &mut all);
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
