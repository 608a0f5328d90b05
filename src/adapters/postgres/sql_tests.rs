//! Checks that statements that belong together stay alike, and that all of them stay readable.

use std::{fs, path::Path};

/// The lines of a statement without comments.
fn code(sql: &str) -> Vec<&str> {
    sql.lines()
        .filter(|line| !line.trim_start().starts_with("--"))
        .filter(|line| !line.trim().is_empty())
        .collect()
}

/// The lines of `left` that are not in the same place of `right`, and the other way round.
fn differences<'a>(left: &'a str, right: &'a str) -> Vec<(&'a str, &'a str)> {
    let (left, right) = (code(left), code(right));
    assert_eq!(left.len(), right.len(), "the number of lines");
    left.into_iter()
        .zip(right)
        .filter(|(left, right)| left != right)
        .map(|(left, right)| (left.trim(), right.trim()))
        .collect()
}

/// The text from the first `start` to the next `end` after it, without comments and with single
/// spaces.
fn section(sql: &str, start: &str, end: &str) -> Option<String> {
    let code = code(sql).join(" ");
    let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
    let (_, rest) = code.split_once(start)?;
    Some(rest.split_once(end)?.0.to_owned())
}

fn statements() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/adapters/postgres/sql");
    let mut all: Vec<(String, String)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, fs::read_to_string(path).unwrap())
        })
        .collect();
    all.sort();
    all
}

/// What the statements for one codebase have in place of those for the whole queue.
const OF_CODEBASE: [(&str, &str); 3] = [
    ("AND $8::text IS NULL", "AND item.codebase::text = $8::text"),
    (
        "AND (item.bucket, item.priority, item.id) > ($9::queue_bucket, $10::bigint, $11::bigint)",
        "AND ($9::queue_bucket, $10::bigint, $11::bigint) IS NOT NULL",
    ),
    (
        "ORDER BY item.bucket, item.priority, item.id",
        "ORDER BY (item.bucket, item.priority, item.id)",
    ),
];

#[test]
fn claims_of_a_codebase_differ_only_in_filter_and_order() {
    let all = include_str!("sql/claim_next.sql");
    let one = include_str!("sql/claim_next_of_codebase.sql");
    assert_eq!(differences(all, one), OF_CODEBASE);
}

#[test]
fn peeks_of_a_codebase_differ_only_in_filter_and_order() {
    let all = include_str!("sql/peek_next.sql");
    let one = include_str!("sql/peek_next_of_codebase.sql");
    assert_eq!(differences(all, one), OF_CODEBASE);
}

#[test]
fn peek_selects_what_claim_selects() {
    let claim = section(
        include_str!("sql/claim_next.sql"),
        "WITH ",
        " FOR UPDATE OF item",
    );
    let peek = section(
        include_str!("sql/peek_next.sql"),
        "WITH ",
        " ) SELECT jsonb",
    );
    assert_eq!(claim.unwrap(), peek.unwrap());
}

#[test]
fn stored_and_replaced_runs_have_the_same_parts() {
    let store = include_str!("sql/store_runs.sql");
    let replace = include_str!("sql/replace_run.sql");
    for (start, end) in [
        ("SELECT coalesce(array_agg(ROW(actual_name", "subpath"),
        (" branches AS (", "follow_ups AS"),
    ] {
        let stored = section(store, start, end).unwrap();
        assert_eq!(stored, section(replace, start, end).unwrap(), "{start}");
    }
    let given = |sql, end| section(sql, "WITH given AS", end).unwrap();
    assert_eq!(given(store, "), locked AS"), given(replace, "), new AS"));
}

#[test]
fn records_are_made_the_same_way_everywhere() {
    for (start, end) in [
        (
            "jsonb_build_object( 'id', item.id",
            "'requester', item.requester)",
        ),
        (
            "json_build_object( 'name', codebase.name",
            "'web_url', codebase.web_url)",
        ),
        ("json_build_object( 'id', run.id", "AS t )"),
        (
            "json_build_object( 'id', candidate.id",
            "candidate.publish_policy)",
        ),
        ("SELECT run_id, token, item::text", "failures"),
    ] {
        let all = statements();
        let records: Vec<(&str, String)> = all
            .iter()
            .filter_map(|(name, sql)| Some((name.as_str(), section(sql, start, end)?)))
            .collect();
        assert!(
            records.len() > 1,
            "{start} is in {} statements",
            records.len()
        );
        for (name, record) in &records {
            assert_eq!(
                *record, records[0].1,
                "{name} differs from {}",
                records[0].0
            );
        }
    }
}

#[test]
fn statements_fit_100_columns() {
    for (name, sql) in statements() {
        for (number, line) in sql.lines().enumerate() {
            assert!(line.len() <= 100, "{name}:{}: {line}", number + 1);
        }
    }
}

#[test]
fn every_table_expression_is_explained() {
    for (name, sql) in statements() {
        let lines: Vec<&str> = sql.lines().collect();
        for (before, line) in lines.iter().zip(lines.iter().skip(1)) {
            if line.starts_with("WITH ") || (line.contains(" AS (") && !line.starts_with(' ')) {
                assert!(before.starts_with("--"), "{name}: {line}");
            }
        }
    }
}
