//! What workers report, in the style of their generation: also nearly right, and with wrong clocks.

use super::client::Generation;
use crate::support::random::Random;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

/// A report, and the code under which its run must be stored.
#[derive(Debug, Clone)]
pub struct Report {
    pub body: Value,
    pub code: &'static str,
}

/// Codes of codemods, some of which sound like the worker's own.
const CODES: [&str; 6] = [
    "success",
    "success",
    "nothing-to-do",
    "command-failed",
    "worker-failure",
    "build-failed-stage-compile",
];

/// When the worker believes that it began and ended.
fn period(random: &mut Random) -> (DateTime<Utc>, DateTime<Utc>) {
    let now = Utc::now();
    let day = TimeDelta::days(1);
    match random.below(6) {
        0 => (DateTime::UNIX_EPOCH, now),
        1 => (now + day * 26_000, now + day * 26_001),
        2 => (now, now - day),
        3 => (now - day * 400, now - day * 399),
        _ => (now - TimeDelta::seconds(1), now),
    }
}

fn text(generation: Generation, time: DateTime<Utc>) -> String {
    let zone = if generation == Generation::Newer {
        "Z"
    } else {
        ""
    };
    format!("{}{zone}", time.format("%Y-%m-%dT%H:%M:%S%.6f"))
}

/// Fields as codemods fill them in.
fn odd_fields(random: &mut Random, report: &mut Value) {
    let description = "é\0".repeat(200);
    let odd = [
        ("value", json!(7.9)),
        ("value", json!("5")),
        ("value", json!(-3)),
        ("description", json!("")),
        ("description", json!(description)),
        ("tags", json!(["v1", "v2"])),
        ("context", json!({ "files": ["a", "b"] })),
        (
            "codemod",
            json!({ "applied": 1, "text": "\u{fffd}\u{1b}[31m" }),
        ),
        ("transient", json!("yes")),
        ("remotes", json!([])),
        ("unknown", json!({ "deep": [[[]]] })),
        ("lintian_result", Value::Null),
    ];
    for _ in 0..random.below(3) {
        let (field, value) = &odd[random.below(odd.len())];
        report[*field] = value.clone();
    }
}

pub fn report(random: &mut Random, generation: Generation, codebase: &str) -> Report {
    let code = random.pick(&CODES);
    let (start, finish) = period(random);
    let mut body = json!({
        "code": code,
        "description": format!("did {codebase}"),
        "start_time": text(generation, start),
        "finish_time": text(generation, finish),
        "main_branch_revision": "rev1",
    });
    if code == "success" {
        body["revision"] = json!("rev2");
        body["branches"] = json!([["main", "gen", "rev1", "rev2"]]);
        body["value"] = json!(3);
        body["target"] = json!({ "name": "generic", "details": {} });
    }
    if generation == Generation::Newer {
        body["remotes"] = json!({ "origin": { "url": "https://forge.example/x" } });
        body["tags"] = json!([]);
        body["stage"] = json!(if code == "success" {
            Value::Null
        } else {
            json!("build/compile")
        });
        if code == "success" {
            body.as_object_mut().unwrap().remove("code");
        }
    }
    odd_fields(random, &mut body);
    Report { body, code }
}
