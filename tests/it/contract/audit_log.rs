//! `AuditLog`.

use super::contract;
use crate::support::start;
use chrono::TimeDelta;
use janitor_runner::{
    domain::audit::{Action, Actor, AuditEntry, AuditFilter, AuditRecord, Change},
    ports::{AuditLog, audit_log::AuditQuery},
};
use serde_json::{Value, json};

contract!(
    every_field_is_kept,
    entries_are_listed_latest_first_and_by_pages,
    filters_restrict_entries,
    few_matches_among_many_entries_are_found_page_by_page,
    old_entries_are_trimmed_in_batches,
    ids_rise_after_trimming,
    empty_log_has_no_entries
);

/// A record of so many minutes after the start.
fn record(who: &str, action: Action, object: &str, minute: i64) -> AuditRecord {
    let actor = Actor {
        who: who.to_owned(),
        address: Some("192.0.2.1".to_owned()),
        request_id: Some(format!("request-{minute}")),
    };
    let change = Change::new(action, object)
        .before(json!({ "most": 1 }))
        .after(json!({ "most": 2, "text": "ä\n\"" }));
    AuditRecord::new(change, &actor, start() + TimeDelta::minutes(minute))
}

fn query(filter: AuditFilter, limit: usize) -> AuditQuery {
    AuditQuery {
        filter,
        before: None,
        limit,
    }
}

/// All entries that match, and the number of pages that they came on.
async fn all<S: AuditLog>(
    store: &S,
    filter: &AuditFilter,
    limit: usize,
) -> (Vec<AuditEntry>, usize) {
    let (mut entries, mut pages, mut before) = (vec![], 0, None);
    loop {
        let page = AuditQuery {
            before,
            ..query(filter.clone(), limit)
        };
        let page = store.entries(page).await.unwrap();
        assert!(page.entries.len() <= limit);
        entries.extend(page.entries);
        pages += 1;
        assert!(pages < 1000, "the pages do not end");
        before = page.next;
        if before.is_none() {
            return (entries, pages);
        }
    }
}

fn objects(entries: &[AuditEntry]) -> Vec<&str> {
    entries
        .iter()
        .map(|entry| entry.record.object.as_str())
        .collect()
}

async fn every_field_is_kept<S: AuditLog>(store: &S) {
    let full = record("anna", Action::SetLimit, "host h", 0);
    let bare = AuditRecord {
        address: None,
        before: None,
        after: None,
        request_id: None,
        ..record("", Action::KillRun, "", 1)
    };
    let microseconds = AuditRecord {
        at: start() + TimeDelta::microseconds(123_456),
        after: Some(Value::from("cut…")),
        ..full.clone()
    };
    let records = vec![full.clone(), bare.clone(), microseconds.clone()];
    let last = store.append(records).await.unwrap();
    let (entries, _) = all(store, &AuditFilter::default(), 9).await;
    assert_eq!(entries[0].id, last);
    let records: Vec<_> = entries.into_iter().map(|entry| entry.record).collect();
    assert_eq!(records, [microseconds, bare, full]);
}

async fn entries_are_listed_latest_first_and_by_pages<S: AuditLog>(store: &S) {
    for minute in 0..5 {
        let object = minute.to_string();
        store
            .append(vec![record("anna", Action::Pause, &object, minute)])
            .await
            .unwrap();
    }
    let (entries, pages) = all(store, &AuditFilter::default(), 2).await;
    assert_eq!(objects(&entries), ["4", "3", "2", "1", "0"]);
    assert_eq!(pages, 3);
    assert!(entries.is_sorted_by(|one, next| one.id > next.id));
    let whole = store
        .entries(query(AuditFilter::default(), 5))
        .await
        .unwrap();
    assert_eq!(whole.next, None, "there is nothing on the next page");
}

/// A filter by who, action and object; an empty text is none.
fn by(who: &str, action: &str, object: &str) -> AuditFilter {
    let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    AuditFilter {
        who: text(who),
        action: text(action),
        object: text(object),
        ..AuditFilter::default()
    }
}

/// A filter by minutes after the start.
fn at(since: Option<i64>, until: Option<i64>) -> AuditFilter {
    let time = |minute: i64| start() + TimeDelta::minutes(minute);
    AuditFilter {
        since: since.map(time),
        until: until.map(time),
        ..AuditFilter::default()
    }
}

async fn filters_restrict_entries<S: AuditLog>(store: &S) {
    store
        .append(vec![
            record("anna", Action::Pause, "host a", 0),
            record("bert", Action::Pause, "host b", 1),
            record("anna", Action::KillRun, "run", 2),
        ])
        .await
        .unwrap();
    let late_ones_of_anna = AuditFilter {
        who: Some("anna".to_owned()),
        ..at(Some(1), None)
    };
    for (filter, found) in [
        (by("anna", "", ""), vec!["run", "host a"]),
        (by("", "pause.set", ""), vec!["host b", "host a"]),
        (by("", "", "run"), vec!["run"]),
        (by("nobody", "", ""), vec![]),
        (at(Some(1), None), vec!["run", "host b"]),
        (at(None, Some(1)), vec!["host a"]),
        (late_ones_of_anna, vec!["run"]),
    ] {
        let (entries, _) = all(store, &filter, 9).await;
        assert_eq!(objects(&entries), found, "{filter:?}");
    }
}

async fn few_matches_among_many_entries_are_found_page_by_page<S: AuditLog>(store: &S) {
    store
        .append(vec![record("anna", Action::KillRun, "wanted", 0)])
        .await
        .unwrap();
    for _ in 0..21 {
        let many = vec![record("bert", Action::Pause, "x", 1); 1000];
        store.append(many).await.unwrap();
    }
    let filter = AuditFilter {
        who: Some("anna".to_owned()),
        ..AuditFilter::default()
    };
    let first = store.entries(query(filter.clone(), 9)).await.unwrap();
    assert_eq!(first.entries, [], "one request looks at all entries");
    let (entries, _) = all(store, &filter, 9).await;
    assert_eq!(objects(&entries), ["wanted"]);
}

async fn old_entries_are_trimmed_in_batches<S: AuditLog>(store: &S) {
    let records = (0..10).map(|minute| record("anna", Action::Pause, &minute.to_string(), minute));
    store.append(records.collect()).await.unwrap();
    let earliest = start() + TimeDelta::minutes(3);
    assert_eq!(store.trim(earliest, 100, 2).await.unwrap(), 2);
    assert_eq!(store.trim(earliest, 100, 2).await.unwrap(), 1);
    assert_eq!(store.trim(earliest, 100, 2).await.unwrap(), 0);
    let (entries, _) = all(store, &AuditFilter::default(), 99).await;
    assert_eq!(objects(&entries).last(), Some(&"3"));
    assert_eq!(store.trim(start(), 5, 100).await.unwrap(), 2);
    let (entries, _) = all(store, &AuditFilter::default(), 99).await;
    assert_eq!(objects(&entries), ["9", "8", "7", "6", "5"]);
    assert_eq!(store.trim(start(), 0, 100).await.unwrap(), 5);
    assert_eq!(store.trim(start(), 0, 100).await.unwrap(), 0);
}

async fn ids_rise_after_trimming<S: AuditLog>(store: &S) {
    let one = || vec![record("anna", Action::Pause, "x", 0)];
    let first = store.append(one()).await.unwrap();
    store.trim(start(), 0, 9).await.unwrap();
    assert!(store.append(one()).await.unwrap() > first);
}

async fn empty_log_has_no_entries<S: AuditLog>(store: &S) {
    let page = store
        .entries(query(AuditFilter::default(), 9))
        .await
        .unwrap();
    assert_eq!((page.entries, page.next), (vec![], None));
    assert_eq!(store.trim(start(), 0, 9).await.unwrap(), 0);
}
