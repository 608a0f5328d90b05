//! Stores that earlier versions wrote open with everything in them. `tests/fixtures/v0.1/make.py`
//! made the stores and recorded what the program of that version answered on them; it explains
//! how, and what is left out.
//!
//! To add a version, copy that folder, run its script with the program of the version, and add
//! tests below.

use crate::support::{
    process::{PROGRAM, Server, root, send},
    servers,
};
use futures::StreamExt;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

/// What a request brings about in the background is there by then.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The times of runs that finish here: that version believed the clocks of workers, others do not.
/// For the same reason the answer on `cb-beside` in `sled/expected.json` was changed by hand: the last
/// effective run of two is the one that was claimed last, not the one with the greater id.
const TIMES_OF_RUNS: &[&str] = &[
    "start_time",
    "finish_time",
    "reported_start_time",
    "reported_finish_time",
];
const RETRY_DELAY: Duration = Duration::from_millis(50);
/// So many differences are enough to see what is wrong.
const MAX_SHOWN: usize = 40;

fn fixture(name: &str) -> PathBuf {
    root().join("tests/fixtures/v0.1").join(name)
}

/// What the old program answered.
struct Expected {
    left_out: Vec<String>,
    events: Vec<Value>,
    exchanges: Vec<Value>,
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap();
    list.iter()
        .map(|text| text.as_str().unwrap().to_owned())
        .collect()
}

impl Expected {
    fn read(kind: &str) -> Self {
        let text = std::fs::read_to_string(fixture(kind).join("expected.json")).unwrap();
        let all: Value = serde_json::from_str(&text).unwrap();
        let list = |key: &str| all[key].as_array().unwrap().clone();
        Self {
            left_out: texts(&all["left_out"]),
            events: list("events"),
            exchanges: list("exchanges"),
        }
    }
}

/// Takes fields away, wherever they are.
fn without(value: &Value, left_out: &[String]) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .filter(|(key, _)| !left_out.contains(key))
            .map(|(key, value)| (key.clone(), without(value, left_out)))
            .collect(),
        Value::Array(list) => list.iter().map(|value| without(value, left_out)).collect(),
        other => other.clone(),
    }
}

/// Lists each field that differs, by its path.
fn differences(path: &str, expected: &Value, actual: &Value) -> Vec<String> {
    match (expected, actual) {
        (Value::Object(expected_fields), Value::Object(actual_fields)) => {
            let keys: BTreeSet<&String> =
                expected_fields.keys().chain(actual_fields.keys()).collect();
            keys.into_iter()
                .flat_map(|key| {
                    let path = format!("{path}.{key}");
                    match (expected_fields.get(key), actual_fields.get(key)) {
                        (Some(expected), Some(actual)) => differences(&path, expected, actual),
                        (Some(expected), None) => vec![format!("{path}: {expected} is missing")],
                        (None, actual) => {
                            let actual = actual.unwrap_or(&Value::Null);
                            vec![format!("{path}: {actual} was not there")]
                        }
                    }
                })
                .collect()
        }
        (Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
            let pairs = expected.iter().zip(actual).enumerate();
            pairs
                .flat_map(|(index, (expected, actual))| {
                    differences(&format!("{path}[{index}]"), expected, actual)
                })
                .collect()
        }
        _ if expected == actual => vec![],
        _ => vec![format!("{path}: expected {expected}, got {actual}")],
    }
}

/// Builds the upload of an exchange, whose parts are `[field, file name, content type, content]`.
fn form(parts: &[Value]) -> reqwest::multipart::Form {
    let form = reqwest::multipart::Form::new();
    parts.iter().fold(form, |form, part| {
        let text = |index: usize| part[index].as_str().unwrap().to_owned();
        let content = match &part[3] {
            Value::String(text) => text.clone(),
            report => report.to_string(),
        };
        let file = reqwest::multipart::Part::text(content)
            .file_name(text(1))
            .mime_str(&text(2))
            .unwrap();
        form.part(text(0), file)
    })
}

/// Sends the request of an exchange.
async fn replay(server: &Server, exchange: &Value) -> (u16, Value) {
    let (method, path) = (
        exchange["method"].as_str().unwrap(),
        exchange["path"].as_str().unwrap(),
    );
    let mut request = if exchange["on"] == "public" {
        server.public_request(method, path)
    } else {
        server.request(method, path)
    };
    if let Some(auth) = exchange["auth"].as_str() {
        let (name, password) = auth.split_once(':').unwrap();
        request = request.basic_auth(name, Some(password));
    }
    if let Some(parts) = exchange["parts"].as_array() {
        request = request.multipart(form(parts));
    } else if !exchange["json"].is_null() {
        request = request.json(&exchange["json"]);
    }
    send(request).await
}

/// Sends the request of an exchange, and lists what differs in its response.
async fn compare(server: &Server, exchange: &Value, left_out: &[String]) -> Vec<String> {
    let (status, actual) = replay(server, exchange).await;
    let left_out = [left_out, &texts(&exchange["left_out"])].concat();
    let request = format!(
        "{} {}",
        exchange["method"].as_str().unwrap(),
        exchange["path"].as_str().unwrap()
    );
    let mut found = differences(
        &format!("{request}: answer"),
        &without(&exchange["answer"], &left_out),
        &without(&actual, &left_out),
    );
    if exchange["status"] != status {
        found.insert(
            0,
            format!(
                "{request}: expected status {}, got {status}",
                exchange["status"]
            ),
        );
    }
    found
}

/// Lists what differs in the answers to all requests.
async fn compare_all(server: &Server, expected: &Expected) -> Vec<String> {
    let (mut found, mut last_write) = (vec![], Instant::now());
    let mut left_out = expected.left_out.clone();
    for exchange in &expected.exchanges {
        let reads = exchange["method"] == "GET";
        if exchange["parts"].is_array() {
            left_out.extend(TIMES_OF_RUNS.iter().copied().map(str::to_owned));
        }
        let mut differing = compare(server, exchange, &left_out).await;
        // What was pending when the store was written, or follows from a write, is done in the
        // background. Once something is wrong, nobody needs to wait that long again.
        let timeout = if found.is_empty() {
            TIMEOUT
        } else {
            TIMEOUT / 10
        };
        while reads && !differing.is_empty() && last_write.elapsed() < timeout {
            tokio::time::sleep(RETRY_DELAY).await;
            differing = compare(server, exchange, &left_out).await;
        }
        if !reads {
            last_write = Instant::now();
        }
        found.extend(differing);
    }
    found
}

/// Which run an event is about.
fn run_of(message: &Value) -> Option<&str> {
    message["log_id"].as_str().or(message["run_id"].as_str())
}

/// The events about the runs of a store: other tests use the same Redis.
struct Events {
    channel: redis::aio::PubSub,
    runs: BTreeSet<String>,
}

impl Events {
    async fn subscribe(expected: &Expected) -> Self {
        let client = redis::Client::open(servers::url("redis")).unwrap();
        let mut channel = client.get_async_pubsub().await.unwrap();
        channel
            .subscribe(&["result", "publish-status"])
            .await
            .unwrap();
        let runs = expected
            .events
            .iter()
            .filter_map(|event| run_of(&event[1]).map(str::to_owned))
            .collect();
        Self { channel, runs }
    }

    /// Waits for so many, as `[channel, message]`.
    async fn receive(&mut self, count: usize) -> Vec<Value> {
        let (started, mut received) = (Instant::now(), vec![]);
        let mut messages = self.channel.on_message();
        while received.len() < count {
            let remaining = TIMEOUT.saturating_sub(started.elapsed());
            let Ok(Some(message)) = tokio::time::timeout(remaining, messages.next()).await else {
                break;
            };
            let text: String = message.get_payload().unwrap();
            let content: Value = serde_json::from_str(&text).unwrap();
            if run_of(&content).is_some_and(|run| self.runs.contains(run)) {
                received.push(serde_json::json!([message.get_channel_name(), content]));
            }
        }
        received
    }
}

async fn store_opens_with_everything(home: &Path, store: &str, kind: &str) {
    let expected = Expected::read(kind);
    let mut events = Events::subscribe(&expected).await;
    // Nobody watches active runs here: the workers of the store have been silent for years, and
    // their runs would be ended. The policies that candidates name are only in the store.
    let settings = format!(
        "keepalive_interval_seconds = 90000\nevents = \"{}\"",
        servers::url("redis")
    );
    let server = Server::start(home, store, &settings).await;
    let received = events.receive(expected.events.len()).await;
    let mut found = differences(
        "events",
        &Value::Array(expected.events.clone()),
        &received.into(),
    );
    found.extend(compare_all(&server, &expected).await);
    let count = found.len();
    found.truncate(MAX_SHOWN);
    assert!(
        found.is_empty(),
        "{count} differences from the answers of the program that wrote the store:\n{}",
        found.join("\n")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sled_folder_of_version_0_1_opens_with_everything() {
    let home = tempfile::tempdir().unwrap();
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(fixture("sled/store.tar.gz"))
        .arg("-C")
        .arg(home.path())
        .status()
        .expect("tar unpacks the store");
    assert!(unpacked.success(), "the store cannot be unpacked");
    let store = format!("sled:{}", home.path().join("db").display());
    store_opens_with_everything(home.path(), &store, "sled").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_of_version_0_1_opens_with_everything() {
    let home = tempfile::tempdir().unwrap();
    let url = servers::empty_database().await;
    let sql = std::fs::read_to_string(fixture("postgres/store.sql")).unwrap();
    servers::execute(&url, &sql).await;
    let migrated = Command::new(PROGRAM)
        .args(["migrate", "--store", &url])
        .output()
        .unwrap();
    assert!(
        migrated.status.success(),
        "the database cannot be migrated: {}{}",
        String::from_utf8_lossy(&migrated.stdout),
        String::from_utf8_lossy(&migrated.stderr)
    );
    store_opens_with_everything(home.path(), &url, "postgres").await;
}

#[test]
fn each_difference_is_reported_by_its_path() {
    let expected = serde_json::json!({ "same": 1, "gone": 2, "list": [{ "a": "x" }], "short": [] });
    let actual = serde_json::json!({ "same": 1, "new": 3, "list": [{ "a": "y" }], "short": [1] });
    assert_eq!(
        differences("GET /x: answer", &expected, &actual),
        [
            "GET /x: answer.gone: 2 is missing",
            "GET /x: answer.list[0].a: expected \"x\", got \"y\"",
            "GET /x: answer.new: 3 was not there",
            "GET /x: answer.short: expected [], got [1]",
        ]
    );
}
