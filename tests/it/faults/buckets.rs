//! Buckets that refuse, crawl, cut connections and lose their temper.

use super::bucket_steps::{Stores, files_below, folder, on_both, uploads_are_closed};
use crate::support::{
    fake_bucket::{FakeBucket, Kind, Mood},
    files::{memory_file, read, spooled_file},
    process::Server,
    start,
};
use bytes::Bytes;
use janitor_runner::{
    adapters::{
        objects::{ObjectArtifacts, ObjectLogs, Objects},
        s3::S3Bucket,
    },
    domain::name::RunId,
    ports::{ArtifactStore, Fault, LogStore, artifact_store::Content},
};
use serde_json::json;
use std::time::{Duration, Instant};

on_both!(
    forbidden_write_is_not_stored,
    forbidden_write_waits_in_the_backup_directory,
    refused_overwrite_is_decided_by_a_look,
    slow_transfers_succeed,
    passing_failures_are_retried,
    long_retry_after_is_not_waited_for,
    download_that_is_cut_is_an_error,
    absent_object_of_an_unlisted_bucket_is_refused,
    hanging_bucket_is_given_up,
);

async fn forbidden_write_is_not_stored(kind: Kind) {
    let bucket = FakeBucket::start().await;
    let objects = bucket.objects_of(kind).await;
    let artifacts = ObjectArtifacts::new(objects.clone());
    let logs = ObjectLogs::new(objects, "");
    artifacts.health_check().await.unwrap();
    let run = RunId::new("r1");
    let large = vec![7; 9 << 20];
    // In the second outage, what the health checks wrote after the first is there.
    for outage in ["first", "second"] {
        bucket.decide(|asked| match asked.method.as_str() {
            "PUT" | "POST" => Mood::Status(403),
            _ => Mood::Normal,
        });
        for file in [memory_file("a", b"a"), memory_file("large", &large)] {
            let stored = artifacts.store(&run, &[file]).await;
            assert!(matches!(stored, Err(Fault::Refused { .. })), "{stored:?}");
        }
        let stored = logs
            .store(&folder("r1"), &[memory_file("w.log", b"w")], start())
            .await;
        assert!(matches!(stored, Err(Fault::Refused { .. })), "{stored:?}");
        // The bucket can still be listed.
        assert!(artifacts.health_check().await.is_err(), "{outage}");
        assert!(logs.health_check().await.is_err(), "{outage}");
        bucket.always(Mood::Normal);
        artifacts.health_check().await.unwrap();
        logs.health_check().await.unwrap();
    }
}

async fn forbidden_write_waits_in_the_backup_directory(kind: Kind) {
    let (bucket, home) = (FakeBucket::start().await, tempfile::tempdir().unwrap());
    let objects = bucket.objects_of(kind).await;
    let stores = Stores::new(objects, home.path());
    bucket.always(Mood::Status(403));
    let run = RunId::new("r1");
    let artifact = [memory_file("a", b"a")];
    stores.artifacts.store(&run, &artifact).await.unwrap();
    let log = [memory_file("w.log", b"w")];
    stores
        .logs
        .store(&folder("r1"), &log, start())
        .await
        .unwrap();
    assert!(bucket.objects().is_empty());
    assert_eq!(files_below(home.path()), 2);
    assert!(!stores.drainer.drain().await);
    assert_eq!(files_below(home.path()), 2);
    assert!(stores.artifacts.health_check().await.is_err());
    bucket.always(Mood::Normal);
    assert!(stores.drainer.drain().await);
    assert_eq!(files_below(home.path()), 0);
    assert_eq!(bucket.objects()["r1/a"], b"a");
    assert!(bucket.objects().contains_key("aa/r1/w.log.gz"));
}

async fn refused_overwrite_is_decided_by_a_look(kind: Kind) {
    let bucket = FakeBucket::start().await;
    bucket.forbid_overwriting();
    let objects = bucket.objects_of(kind).await;
    let artifacts = ObjectArtifacts::new(objects.clone());
    let logs = ObjectLogs::new(objects, "");
    let run = RunId::new("r1");
    for size in [3, 9 << 20] {
        let name = format!("a{size}");
        let same = memory_file(&name, &vec![1; size]);
        artifacts
            .store(&run, std::slice::from_ref(&same))
            .await
            .unwrap();
        artifacts.store(&run, &[same]).await.unwrap();
        let mut other = vec![1; size];
        *other.last_mut().unwrap() = 2;
        let stored = artifacts.store(&run, &[memory_file(&name, &other)]).await;
        assert!(stored.is_err(), "other content counts as stored");
        let stored = artifacts
            .store(&run, &[memory_file(&name, &vec![1; size - 1])])
            .await;
        assert!(stored.is_err(), "the start of the content counts as stored");
    }
    for text in ["first", "first", "second", "second"] {
        let log = memory_file("w.log", text.as_bytes());
        logs.store(&folder("r1"), &[log], start()).await.unwrap();
    }
    let names: Vec<String> = bucket.objects().into_keys().collect();
    assert!(
        names.contains(&"aa/r1/w.log.20261123T100000.gz".to_owned()),
        "{names:?}"
    );
    // The account may neither overwrite nor read: nothing proves that the log is there.
    bucket.decide(|asked| match asked.method.as_str() {
        "GET" => Mood::Status(403),
        _ => Mood::Normal,
    });
    let log = memory_file("w.log", b"first");
    assert!(logs.store(&folder("r1"), &[log], start()).await.is_err());
}

async fn slow_transfers_succeed(kind: Kind) {
    let bucket = FakeBucket::start().await;
    let objects = bucket.objects_of(kind).await;
    let spool = tempfile::tempdir().unwrap();
    bucket.always(Mood::Crawl(1 << 20));
    let sizes = [8 << 20, 12 << 20];
    let transfers = sizes.map(|size: usize| {
        let (objects, spool) = (objects.clone(), spool.path().to_owned());
        async move {
            let bytes: Vec<u8> = (0..=250).cycle().take(size).collect();
            let file = spooled_file(&spool, &format!("f{size}"), &bytes);
            objects
                .put(&file.name, &file.content, file.size)
                .await
                .unwrap();
            let stored = read(objects.get(&file.name).await.unwrap()).await.unwrap();
            assert!(stored == bytes, "{size}");
        }
    });
    let started = Instant::now();
    futures::future::join_all(transfers).await;
    println!("{kind:?}: up and down in {:?}", started.elapsed());
    assert_eq!(bucket.open_uploads(), 0);
}

async fn passing_failures_are_retried(kind: Kind) {
    let bucket = FakeBucket::start().await;
    let objects = bucket.objects_of(kind).await;
    let content = Content::Memory(Bytes::from_static(b"content"));
    for mood in [
        Mood::Status(408),
        Mood::RetryAfter(429, 1),
        Mood::Status(500),
        Mood::Status(503),
        Mood::CutBefore,
        Mood::CutAfter,
    ] {
        bucket.then(vec![mood, mood]);
        let started = Instant::now();
        objects.put("o", &content, 7).await.unwrap();
        if let Mood::RetryAfter(_, seconds) = mood {
            assert!(started.elapsed() >= Duration::from_secs((2 * seconds).into()));
        }
        // A response that breaks off within its body is an error of the reader.
        if mood != Mood::CutAfter {
            bucket.then(vec![mood, mood]);
            assert_eq!(
                read(objects.get("o").await.unwrap()).await.unwrap(),
                b"content"
            );
        }
    }
    bucket.always(Mood::Status(503));
    let before = bucket.asked().len();
    assert!(objects.put("o", &content, 7).await.is_err());
    let attempts = bucket.asked().len() - before;
    assert!((2..10).contains(&attempts), "{attempts} attempts");
}

async fn long_retry_after_is_not_waited_for(kind: Kind) {
    let bucket = FakeBucket::start().await;
    let objects = bucket.objects_of(kind).await;
    bucket.always(Mood::RetryAfter(503, 3600));
    let started = Instant::now();
    let content = Content::Memory(Bytes::from_static(b"x"));
    assert!(objects.put("o", &content, 1).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(bucket.asked().len(), 1);
}

async fn download_that_is_cut_is_an_error(kind: Kind) {
    use tokio::io::AsyncReadExt;
    let bucket = FakeBucket::start().await;
    let objects = bucket.objects_of(kind).await;
    let content = Content::Memory(vec![1; 300_000].into());
    objects.put("o", &content, 300_000).await.unwrap();
    bucket.always(Mood::CutAfter);
    let mut bytes = vec![];
    let mut reader = objects.get("o").await.unwrap().unwrap();
    reader.read_to_end(&mut bytes).await.unwrap_err();
    assert!(bytes.len() < 300_000);
}

async fn absent_object_of_an_unlisted_bucket_is_refused(kind: Kind) {
    let bucket = FakeBucket::start().await;
    bucket.forbid_listing();
    let objects = bucket.objects_of(kind).await;
    let logs = ObjectLogs::new(objects, "");
    // Not known to work before the first write: the check makes one.
    logs.health_check().await.unwrap();
    let opened = logs.open(&folder("r1"), "w.log").await;
    assert!(matches!(opened, Err(Fault::Refused { .. })));
    let log = memory_file("w.log", b"w");
    logs.store(&folder("r1"), &[log], start()).await.unwrap();
    assert_eq!(
        read(logs.open(&folder("r1"), "w.log").await.unwrap())
            .await
            .unwrap(),
        b"w"
    );
    logs.health_check().await.unwrap();
}

async fn hanging_bucket_is_given_up(kind: Kind) {
    let bucket = FakeBucket::start().await;
    let objects = bucket.objects_of(kind).await;
    bucket.always(Mood::Hang);
    let started = Instant::now();
    let content = Content::Memory(Bytes::from_static(b"x"));
    assert!(objects.put("o", &content, 1).await.is_err());
    assert!(objects.get("o").await.is_err());
    assert!(
        started.elapsed() < Duration::from_secs(12),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upload_that_does_not_complete_is_aborted() {
    let bucket = FakeBucket::start().await;
    let objects = bucket.objects_of(Kind::S3).await;
    let content = Content::Memory(vec![1; 20 << 20].into());
    let fails = |method: &'static str, query: &'static str, mood: Mood| {
        bucket.decide(move |asked| {
            if asked.method == method && asked.query.contains_key(query) {
                mood
            } else {
                Mood::Normal
            }
        });
    };
    // Refused, cut again and again, and hanging, at each step.
    for (method, query) in [("PUT", "partNumber"), ("POST", "uploadId")] {
        for mood in [Mood::Status(403), Mood::CutBefore, Mood::Hang] {
            fails(method, query, mood);
            let stored = objects.put("o", &content, 20 << 20).await;
            assert!(stored.is_err(), "{method} {mood:?}");
            uploads_are_closed(&bucket).await;
        }
    }
    // Aborting is refused, too, for a while.
    let mut refusals = 2;
    bucket.decide(move |asked| match asked.method.as_str() {
        "PUT" => Mood::Status(403),
        "DELETE" if refusals > 0 => {
            refusals -= 1;
            Mood::Status(403)
        }
        _ => Mood::Normal,
    });
    assert!(objects.put("o", &content, 20 << 20).await.is_err());
    uploads_are_closed(&bucket).await;
    // Nobody waits for it any more.
    fails("PUT", "partNumber", Mood::Crawl(1 << 20));
    let dropped = tokio::time::timeout(
        Duration::from_millis(500),
        objects.put("o", &content, 20 << 20),
    );
    assert!(dropped.await.is_err());
    uploads_are_closed(&bucket).await;
    // Its id was lost with the response.
    for times in [1, 10] {
        let mut left = times;
        bucket.decide(move |asked| {
            if asked.method == "POST" && asked.query.contains_key("uploads") && left > 0 {
                left -= 1;
                Mood::CutAfter
            } else {
                Mood::Normal
            }
        });
        let stored = objects.put("o", &content, 20 << 20).await;
        assert_eq!(stored.is_ok(), times == 1);
        uploads_are_closed(&bucket).await;
    }
    assert_eq!(bucket.begun_uploads(), 6 + 1 + 1 + 2 + 5);
    assert_eq!(bucket.objects()["o"].len(), 20 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn completed_upload_whose_response_is_lost_counts_as_stored() {
    let bucket = FakeBucket::start().await;
    let artifacts = ObjectArtifacts::new(bucket.objects_of(Kind::S3).await);
    let mut cut = false;
    bucket.decide(move |asked| {
        if asked.method == "POST" && asked.query.contains_key("uploadId") && !cut {
            cut = true;
            return Mood::CutAfter;
        }
        Mood::Normal
    });
    let file = memory_file("large", &vec![1; 9 << 20]);
    artifacts.store(&RunId::new("r1"), &[file]).await.unwrap();
    assert_eq!(bucket.objects()["r1/large"].len(), 9 << 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acl_is_sent_and_signed_where_objects_are_created() {
    let bucket = FakeBucket::start().await;
    let settings = janitor_runner::adapters::s3::S3Settings {
        acl: Some("public-read".into()),
        ..bucket.s3_settings()
    };
    let objects = S3Bucket::open(&settings).unwrap();
    let content = Content::Memory(Bytes::from_static(b"x"));
    objects.put("o", &content, 1).await.unwrap();
    let large = Content::Memory(vec![1; 9 << 20].into());
    objects.put("large", &large, 9 << 20).await.unwrap();
    read(objects.get("o").await.unwrap()).await.unwrap();
    for asked in bucket.asked() {
        let creates = asked.query.contains_key("uploads")
            || asked.method == "PUT" && !asked.query.contains_key("partNumber");
        let acl = asked.headers.get("x-amz-acl").map(String::as_str);
        assert_eq!(acl, creates.then_some("public-read"), "{asked:?}");
        let signed = &asked.headers["authorization"];
        assert!(signed.contains("Credential=key/"), "{signed}");
        assert_eq!(signed.contains("x-amz-acl"), creates, "{signed}");
    }
}

/// A server without a backup directory, whose artifacts and logs are in the bucket.
async fn server_of(bucket: &FakeBucket, home: &std::path::Path) -> Server {
    let settings = format!(
        "artifacts = \"s3://bucket/\"\nlogs = \"{0}\"\ns3 = {{ endpoint = \"{0}\", log_bucket = \"bucket\", access_key_id = \"key\", secret_access_key = \"secret\" }}\n",
        bucket.url
    );
    Server::start(home, "memory:", &settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_whose_bucket_forbids_writes_is_stored_as_failed() {
    let (bucket, home) = (FakeBucket::start().await, tempfile::tempdir().unwrap());
    let server = server_of(&bucket, home.path()).await;
    server.add_worker("w1", "secret1").await;
    assert_eq!(server.get("/ready").await.0, 200);
    bucket.decide(|asked| match asked.method.as_str() {
        "PUT" => Mood::Status(403),
        _ => Mood::Normal,
    });
    server.queue("foo", "gen").await;
    let run = server.claim_of("foo").await;
    let report = json!({ "code": "success", "target": { "name": "generic" } });
    let files: [(&str, &[u8]); 2] = [("out.bin", b"o"), ("w.log", b"w")];
    let (status, body) = server.finish(&run, &report, &files).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(body["result"]["code"], "artifact-upload-failed", "{body}");
    assert_eq!(body["artifacts"], json!([]), "{body}");
    assert_eq!(body["logs"], json!([]), "{body}");
    let (status, text) = server.get("/ready").await;
    assert_eq!(status, 503, "{text}");
    let (_, metrics) = server.get("/metrics").await;
    let metrics = metrics.as_str().unwrap();
    for line in [
        "artifact_upload_failed_total 1",
        "primary_logfile_upload_failed_total 1",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert!(server.log().contains("ERROR"), "{}", server.log());
    bucket.always(Mood::Normal);
    assert_eq!(server.get("/ready").await.0, 200);
    // Absent and refused are the same to an account that may not list the bucket.
    bucket.forbid_listing();
    let (status, text) = server.get(&format!("/log/{run}/w.log")).await;
    assert_eq!(status, 404, "{text}");
    assert!(
        text.as_str().unwrap_or_default().contains("does not allow"),
        "{text}"
    );
}
