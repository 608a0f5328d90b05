//! `docs/compatibility.md` and the recordings name the same differences.

use crate::support::process::root;
use serde_json::Value;
use std::collections::BTreeSet;

/// Returns the recorded steps for which something better than the response must hold, as the page
/// names them: `SCENARIO STEP`.
fn better_steps() -> BTreeSet<String> {
    let recorded = std::fs::read_to_string(root().join("tests/golden/golden.jsonl")).unwrap();
    let steps = recorded
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    steps
        .filter(|step| !step["better"].is_null())
        .map(|step| format!("{} {}", step["scenario"].as_str().unwrap(), step["step"]))
        .collect()
}

/// Returns the steps in the first column of the page's table of recorded differences.
fn documented_steps() -> BTreeSet<String> {
    let page = std::fs::read_to_string(root().join("docs/compatibility.md")).unwrap();
    let (_, section) = page
        .split_once("\n## Recorded")
        .expect("a section on recorded steps");
    let section = section.split("\n## ").next().unwrap();
    section
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .skip(2)
        .map(|row| row.split(" | ").next().unwrap().trim().to_owned())
        .collect()
}

#[test]
fn page_names_each_recorded_difference_and_no_other() {
    let (recorded, documented) = (better_steps(), documented_steps());
    let missing: Vec<_> = recorded.difference(&documented).collect();
    let outdated: Vec<_> = documented.difference(&recorded).collect();
    assert!(
        missing.is_empty(),
        "not in docs/compatibility.md: {missing:?}"
    );
    assert!(outdated.is_empty(), "in no recording: {outdated:?}");
}
