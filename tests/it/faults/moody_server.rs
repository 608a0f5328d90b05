//! A server with a moody bucket: what its answers call stored is in the bucket or waits in the
//! backup directory, and all of it is in the bucket once that behaves.

use super::{
    bucket_steps::on_both,
    moody_bucket::{Numbers, files_of},
};
use crate::support::{
    fake_bucket::{FakeBucket, Kind, Mood, NAME},
    process::Server,
};
use flate2::read::GzDecoder;
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::Read,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

on_both!(what_a_server_calls_stored_is_stored);

const CLIENTS: usize = 8;

fn settings(kind: Kind, bucket: &FakeBucket, backup: &std::path::Path) -> String {
    let url = &bucket.url;
    let backup = format!("backup_directory = \"{}\"\n", backup.display());
    match kind {
        Kind::S3 => format!(
            "artifacts = \"s3://{NAME}/\"\nlogs = \"{url}\"\n{backup}s3 = {{ endpoint = \"{url}\", log_bucket = \"{NAME}\", access_key_id = \"key\", secret_access_key = \"secret\" }}\n"
        ),
        Kind::Gcs => format!(
            "artifacts = \"gs://{NAME}/\"\nlogs = \"gs://{NAME}/\"\n{backup}gcs = {{ endpoint = \"{url}\", credentials = \"anonymous\" }}\n"
        ),
    }
}

/// The runs that were answered with 201, and the number of each.
type Answered = BTreeMap<String, u64>;

/// Finishes runs until there are none left.
async fn client(server: &Server, next: &AtomicU64, runs: u64) -> Answered {
    let mut answered = Answered::new();
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= runs {
            return answered;
        }
        let id = server.claim_of(&format!("c{number}")).await;
        let report = json!({ "code": "success", "target": { "name": "generic" } });
        let ([artifact, log], started) = (files_of(number), Instant::now());
        let files: [(&str, &[u8]); 2] = [("out.bin", &artifact), ("w.log", &log)];
        let (status, body) = server.finish(&id, &report, &files).await;
        assert_eq!(status, 201, "{body}");
        assert!(started.elapsed() < Duration::from_secs(120), "{number}");
        assert_eq!(body["result"]["code"], "success", "{body}");
        assert_eq!(body["artifacts"], json!(["out.bin"]), "{body}");
        assert_eq!(body["logs"], json!(["w.log"]), "{body}");
        answered.insert(id, number);
    }
}

fn uncompressed(bytes: &[u8]) -> Vec<u8> {
    let mut plain = vec![];
    GzDecoder::new(bytes).read_to_end(&mut plain).unwrap();
    plain
}

/// The content of a run's file in the bucket, if it is there.
fn stored(objects: &BTreeMap<String, Vec<u8>>, id: &str, name: &str) -> Option<Vec<u8>> {
    let (_, content) = objects
        .iter()
        .find(|(key, _)| key.contains(id) && key.trim_end_matches(".gz").ends_with(name))?;
    match name {
        "w.log" => Some(uncompressed(content)),
        _ => Some(content.clone()),
    }
}

/// 100 runs, or as many as `MOODY_RUNS` says.
async fn what_a_server_calls_stored_is_stored(kind: Kind) {
    let runs: u64 = std::env::var("MOODY_RUNS").map_or(100, |runs| runs.parse().unwrap());
    let (bucket, home) = (FakeBucket::start().await, tempfile::tempdir().unwrap());
    let backup = home.path().join("backup");
    let settings = settings(kind, &bucket, &backup);
    let mut server = Server::start(home.path(), "memory:", &settings).await;
    server.add_worker("w1", "secret1").await;
    for number in 0..runs {
        server.queue(&format!("c{number}"), "gen").await;
    }
    let mut numbers = Numbers(3);
    bucket.decide(move |_| numbers.mood());
    let next = AtomicU64::new(0);
    let clients = (0..CLIENTS).map(|_| client(&server, &next, runs));
    let answered: Answered = futures::future::join_all(clients)
        .await
        .into_iter()
        .flatten()
        .collect();
    assert_eq!(answered.len() as u64, runs);
    // Whatever is not in the bucket yet can be read all the same.
    bucket.always(Mood::Normal);
    let objects = bucket.objects();
    let mut waited = 0;
    for (id, number) in &answered {
        let [_, log] = files_of(*number);
        waited += usize::from(stored(&objects, id, "w.log").is_none());
        let shown = server.request("GET", &format!("/log/{id}/w.log"));
        let shown = shown.send().await.unwrap();
        assert!(
            shown.bytes().await.unwrap() == log.as_slice(),
            "log of {number}"
        );
    }
    assert!(waited > 0, "the bucket was not moody enough");
    // The next process moves what waits.
    server.kill();
    server.run().await;
    let started = Instant::now();
    let complete = |objects: &BTreeMap<String, Vec<u8>>| {
        answered.keys().all(|id| {
            ["out.bin", "w.log"]
                .iter()
                .all(|name| stored(objects, id, name).is_some())
        })
    };
    while !complete(&bucket.objects()) {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "files still wait"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let objects = bucket.objects();
    for (id, number) in &answered {
        let [artifact, log] = files_of(*number);
        assert!(
            stored(&objects, id, "out.bin") == Some(artifact),
            "artifact of {number}"
        );
        assert!(
            stored(&objects, id, "w.log") == Some(log),
            "log of {number}"
        );
    }
    assert_eq!(server.get("/ready").await.0, 200);
    println!(
        "{kind:?}: {runs} runs, {} requests, {waited} logs waited",
        bucket.asked().len()
    );
}
