//! Random lives of workers of both older generations: odd files, reports and clocks; uploads that
//! are cut, repeated, sent twice at once or left before the response; servers that are killed.
//! Each result that was sent whole is stored once, with its files byte for byte.
//!
//! `LIVES` is the number of lives on each store, `LIVES_SEED` what they are made of.

mod client;
mod reports;

use crate::support::{
    process::Server,
    random::{Random, number},
    servers,
};
use client::{Client, File, Generation, Response, Way, files};
use reports::{Report, report};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

const ACCOUNTS: [(&str, &str); 2] = [("older", "secret1"), ("newer", "secret2")];
/// How long a worker goes on trying to upload.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Larger files are left out.
const SETTINGS: &str = "[limits]\nupload_file = \"150 KiB\"\n";
const MAX_FILE: usize = 150 << 10;

/// What happens while a result is uploaded.
#[derive(Debug, Clone, Copy)]
enum Event {
    Nothing,
    /// The upload is cut some times, at random places.
    Cuts,
    /// The response is lost, so that the worker uploads all again.
    Repeated,
    TwiceAtOnce,
    /// The worker ends after the last byte.
    Unread,
    /// The server is killed while the upload goes on.
    KilledServer,
}

const EVENTS: [&Event; 9] = [
    &Event::Nothing,
    &Event::Cuts,
    &Event::Cuts,
    &Event::Repeated,
    &Event::TwiceAtOnce,
    &Event::TwiceAtOnce,
    &Event::Unread,
    &Event::KilledServer,
    &Event::KilledServer,
];

struct Life {
    codebase: String,
    report: Report,
    files: Vec<File>,
    event: Event,
}

impl Life {
    fn random(random: &mut Random, number: usize, generation: Generation) -> Self {
        let codebase = format!("c{number}");
        Self {
            report: report(random, generation, &codebase),
            files: files(random, number),
            event: *random.pick(&EVENTS),
            codebase,
        }
    }
}

/// Uploads until the runner responds, as both generations do.
async fn persistently(client: &Client, id: &str, life: &Life) -> Response {
    let started = Instant::now();
    loop {
        let sent = client
            .finish(id, &life.report.body, &life.files, Way::Whole)
            .await;
        match sent {
            Some(response) if response.0 < 500 => return response,
            other => assert!(started.elapsed() < UPLOAD_TIMEOUT, "{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Uploads the result of a life; returns the last response, if any was read.
async fn upload(
    server: &mut Server,
    client: &Client,
    id: &str,
    life: &Life,
    random: &mut Random,
) -> Option<Response> {
    let (report, files) = (&life.report.body, &life.files);
    match life.event {
        Event::Nothing => {}
        Event::Cuts => {
            for _ in 0..=random.below(3) {
                let end = random.below(client.size(report, files));
                client.finish(id, report, files, Way::CutAfter(end)).await;
            }
        }
        Event::Repeated => {
            let first = persistently(client, id, life).await;
            assert_eq!(first.0, 201, "{first:?}");
        }
        Event::TwiceAtOnce => {
            let (first, second) = tokio::join!(
                persistently(client, id, life),
                persistently(client, id, life)
            );
            let mut statuses = [first.0, second.0];
            statuses.sort_unstable();
            assert_eq!(statuses, [200, 201], "{first:?} {second:?}");
        }
        Event::Unread => {
            client.finish(id, report, files, Way::Unread).await;
            return None;
        }
        Event::KilledServer => {
            let slow = client.finish(id, report, files, Way::Slowly);
            let killed = async {
                tokio::time::sleep(Duration::from_millis(random.below(120) as u64)).await;
                server.kill();
                server.run().await;
            };
            tokio::join!(slow, killed);
        }
    }
    Some(persistently(client, id, life).await)
}

/// All files below a folder whose path names a run, uncompressed.
fn contents_below(folder: &Path, id: &str) -> Vec<Vec<u8>> {
    let mut found = vec![];
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(contents_below(&path, id));
        } else if path.components().any(|part| part.as_os_str() == id) {
            let bytes = std::fs::read(&path).unwrap();
            let mut plain = vec![];
            let is_compressed = flate2::read::GzDecoder::new(bytes.as_slice())
                .read_to_end(&mut plain)
                .is_ok();
            found.push(if is_compressed { plain } else { bytes });
        }
    }
    found
}

fn is_log(file: &File) -> bool {
    file.name.ends_with(b".log") || file.name.ends_with(b".log.1")
}

fn is_too_large(file: &File) -> bool {
    file.content.len() > MAX_FILE
}

/// The code and the contents of files that must be stored of a life, by the rules of the runner:
/// only a success has artifacts; too large a log is cut, too large an artifact is left out.
fn wanted(life: &Life) -> (&str, Vec<Vec<u8>>) {
    let has_artifacts = life.report.code == "success";
    let lost_one = life
        .files
        .iter()
        .any(|file| is_too_large(file) && !is_log(file));
    let code = match has_artifacts && lost_one {
        true => "artifact-invalid",
        false => life.report.code,
    };
    let kept = |file: &&File| is_log(file) || has_artifacts && !is_too_large(file);
    let content = |file: &File| file.content[..file.content.len().min(MAX_FILE)].to_vec();
    (code, life.files.iter().filter(kept).map(content).collect())
}

/// Checks that a run is stored as it was sent, with its files.
fn check(server: &Server, life: &Life, run: &Value) {
    let context = format!("{:?} {:?}: {run}", life.event, life.report);
    let (code, mut sent) = wanted(life);
    assert_eq!(run["code"], code, "{context}");
    if life.report.code == "success" {
        assert_eq!(run["revision"], "rev2", "{context}");
    }
    let id = run["log_id"].as_str().unwrap();
    let mut stored = contents_below(&server.home.join("artifacts"), id);
    stored.extend(contents_below(&server.home.join("logs"), id));
    stored.sort_unstable();
    sent.sort_unstable();
    let sizes = |files: &[Vec<u8>]| files.iter().map(Vec::len).collect::<Vec<_>>();
    assert_eq!(sizes(&stored), sizes(&sent), "{context}");
    assert!(stored == sent, "{context}: other contents");
    let took = run["duration"].as_f64().unwrap();
    assert!((0.0..=120.0).contains(&took), "{context}: {took} s");
}

/// Goes through one life, and returns the stored run.
async fn live(server: &mut Server, client: &Client, life: &Life, random: &mut Random) -> Value {
    server.queue(&life.codebase, "gen").await;
    let (status, assignment) = client.claim(&life.codebase).await;
    assert_eq!(status, 201, "{assignment}");
    let id = assignment["id"].as_str().unwrap();
    println!(
        "{id}: {:?} by {:?}, {} bytes",
        life.event,
        client.generation,
        client.size(&life.report.body, &life.files)
    );
    if let Some((status, body)) = upload(server, client, id, life, random).await {
        assert!([200, 201].contains(&status), "{status} {body}");
        assert_eq!(body["id"], id, "{body}");
    }
    let path = format!("/runs/{id}?full=1");
    let run = server.until(&path, |run| run["log_id"] == id).await;
    check(server, life, &run);
    run
}

async fn lives(mut server: Server) {
    let (lives, seed) = (number("LIVES", 40), number("LIVES_SEED", 7));
    for (name, password) in ACCOUNTS {
        server.add_worker(name, password).await;
    }
    let generations = [Generation::Older, Generation::Newer];
    let clients: Vec<Client> = generations
        .into_iter()
        .zip(ACCOUNTS)
        .map(|(generation, account)| Client::new(generation, &server.public, account))
        .collect();
    let mut random = Random::new(seed);
    let mut codes: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..usize::try_from(lives).unwrap() {
        let client = &clients[random.below(2)];
        let life = Life::random(&mut random, number, client.generation);
        let run = live(&mut server, client, &life, &mut random).await;
        *codes
            .entry(run["code"].as_str().unwrap().to_owned())
            .or_default() += 1;
    }
    println!("{codes:?}");
    let (_, runs) = server.get("/runs?limit=1000").await;
    assert_eq!(runs.as_array().map(Vec::len), Some(lives as usize));
    let (_, workers) = server.get("/admin/workers").await;
    for worker in workers["workers"].as_array().unwrap() {
        assert_eq!(worker["paused"], json!(null), "{worker}");
    }
}

#[tokio::test]
async fn results_sent_whole_are_stored_once_on_sled() {
    let home = tempfile::tempdir().unwrap();
    let store = format!("sled:{}", home.path().join("db").display());
    lives(Server::start(home.path(), &store, SETTINGS).await).await;
}

#[tokio::test]
async fn results_sent_whole_are_stored_once_on_postgres() {
    let home = tempfile::tempdir().unwrap();
    let store = servers::database().await;
    lives(Server::start(home.path(), &store, SETTINGS).await).await;
}
