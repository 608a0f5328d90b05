//! Buckets that refuse, crawl, cut connections and lose their temper.

use crate::support::{
    fake_bucket::{FakeBucket, Kind, Mood},
    files::{memory_file, read, spooled_file},
    start,
    values::codebase_name,
};
use bytes::Bytes;
use janitor_runner::{
    adapters::{
        fallback::{Drainer, FallbackArtifacts, FallbackLogs},
        objects::{ObjectArtifacts, ObjectLogs, Objects},
        s3::S3Bucket,
    },
    domain::name::RunId,
    metrics::Metrics,
    ports::{
        ArtifactStore, Fault, LogStore, SpooledFile, artifact_store::Content, log_store::LogFolder,
    },
};
use std::{
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Runs each case with S3 and with GCS.
macro_rules! on_both {
    ($($case:ident),+ $(,)?) => {
        mod s3 {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::Kind::S3).await;
            })+
        }
        mod gcs {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::Kind::Gcs).await;
            })+
        }
    };
}

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
    moody_bucket_loses_nothing,
);

fn folder(run: &str) -> LogFolder {
    LogFolder {
        codebase: codebase_name("aa"),
        run: RunId::new(run),
    }
}

/// The files below a directory, without those whose names begin with a dot.
fn files_below(base: &Path) -> usize {
    let Ok(entries) = fs::read_dir(base) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => files_below(&entry.path()),
            false => 1,
        })
        .sum()
}

async fn forbidden_write_is_not_stored(kind: Kind) {
    let bucket = FakeBucket::start().await;
    let objects = bucket.objects_of(kind).await;
    let artifacts = ObjectArtifacts::new(objects.clone());
    let logs = ObjectLogs::new(objects, "");
    artifacts.health_check().await.unwrap();
    bucket.decide(|asked| match asked.method.as_str() {
        "PUT" | "POST" => Mood::Status(403),
        _ => Mood::Normal,
    });
    let run = RunId::new("r1");
    let large = vec![7; 9 << 20];
    for file in [memory_file("a", b"a"), memory_file("large", &large)] {
        let stored = artifacts.store(&run, &[file]).await;
        assert!(matches!(stored, Err(Fault::Refused { .. })), "{stored:?}");
    }
    let stored = logs
        .store(&folder("r1"), &[memory_file("w.log", b"w")], start())
        .await;
    assert!(matches!(stored, Err(Fault::Refused { .. })), "{stored:?}");
    // The bucket can still be listed.
    assert!(artifacts.health_check().await.is_err());
    assert!(logs.health_check().await.is_err());
    bucket.always(Mood::Normal);
    artifacts.health_check().await.unwrap();
    logs.health_check().await.unwrap();
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
        artifacts.store(&run, &[same.clone()]).await.unwrap();
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
            let bytes: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
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

async fn uploads_are_closed(bucket: &FakeBucket) {
    for _ in 0..200 {
        if bucket.open_uploads() == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{} uploads stay open", bucket.open_uploads());
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
    assert_eq!(bucket.begun_uploads(), 6 + 1 + 2 + 5);
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

/// Stores with a backup directory below `home`.
struct Stores {
    artifacts: FallbackArtifacts,
    logs: FallbackLogs,
    drainer: Drainer,
}

impl Stores {
    fn new(objects: Arc<dyn Objects>, home: &Path) -> Self {
        let backup = home.join("backup");
        let artifacts = Arc::new(ObjectArtifacts::new(objects.clone()));
        let (artifacts, spooled) = FallbackArtifacts::new(artifacts, backup.join("artifacts"));
        let logs = Arc::new(ObjectLogs::new(objects, ""));
        let (logs, spooled_logs) = FallbackLogs::new(logs, backup.join("logs"));
        let spooled: Vec<Arc<dyn janitor_runner::adapters::fallback::SpooledFiles>> =
            vec![Arc::new(spooled_logs), Arc::new(spooled)];
        let drainer = Drainer::new(&backup, spooled, Arc::new(Metrics::new())).unwrap();
        Self {
            artifacts,
            logs,
            drainer,
        }
    }
}

/// The numbers of a seed, one after the other.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn mood(&mut self) -> Mood {
        match self.below(100) {
            0..8 => Mood::Status(403),
            8..13 => Mood::Status(429),
            13..15 => Mood::RetryAfter(429, 1),
            15..21 => Mood::Status(500),
            21..27 => Mood::Status(503),
            27..32 => Mood::CutBefore,
            32..37 => Mood::CutAfter,
            37..40 => Mood::Crawl(4 << 20),
            _ => Mood::Normal,
        }
    }
}

/// The files of a run: an artifact and a log, few of them large.
fn files_of(number: u64) -> (SpooledFile, SpooledFile) {
    let mut numbers = Numbers(number);
    let mut content = |large: bool| -> Vec<u8> {
        let size = if large {
            (1 << 20) + numbers.below(8 << 20)
        } else {
            numbers.below(4096)
        };
        let mut bytes = vec![0; size as usize];
        for chunk in bytes.chunks_mut(8) {
            let random = numbers.below(u64::MAX).to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
        bytes
    };
    let (artifact, log) = (content(number % 50 == 7), content(number % 100 == 9));
    (
        memory_file("out.bin", &artifact),
        memory_file("w.log", &log),
    )
}

fn bytes_of(file: &SpooledFile) -> &[u8] {
    match &file.content {
        Content::Memory(bytes) => bytes,
        Content::File(_) => panic!("not in memory"),
    }
}

/// 200 runs, or as many as `MOODY_RUNS` says. Those with odd numbers have no backup directory.
async fn moody_bucket_loses_nothing(kind: Kind) {
    let runs: u64 = std::env::var("MOODY_RUNS").map_or(200, |runs| runs.parse().unwrap());
    let (bucket, home) = (FakeBucket::start().await, tempfile::tempdir().unwrap());
    let objects = bucket.objects_of(kind).await;
    let stores = Arc::new(Stores::new(objects.clone(), home.path()));
    let artifacts = Arc::new(ObjectArtifacts::new(objects.clone()));
    let logs = Arc::new(ObjectLogs::new(objects, ""));
    let mut numbers = Numbers(1);
    bucket.decide(move |_| numbers.mood());
    let started = Instant::now();
    let next = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let client = || {
        let (stores, artifacts, logs, next) = (
            stores.clone(),
            artifacts.clone(),
            logs.clone(),
            next.clone(),
        );
        tokio::spawn(async move {
            let mut stored = vec![];
            loop {
                let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if number >= runs {
                    return stored;
                }
                let (artifact, log) = files_of(number);
                let (run, folder) = (
                    RunId::new(format!("r{number}")),
                    folder(&format!("r{number}")),
                );
                let with_backup = number % 2 == 0;
                let (a, l): (&dyn ArtifactStore, &dyn LogStore) = match with_backup {
                    true => (&stores.artifacts, &stores.logs),
                    false => (artifacts.as_ref(), logs.as_ref()),
                };
                let artifact = a.store(&run, &[artifact]).await.is_ok();
                let log = l.store(&folder, &[log], start()).await.is_ok();
                assert!(
                    artifact && log || !with_backup,
                    "the backup directory takes all"
                );
                stored.push((number, artifact, log));
            }
        })
    };
    let clients: Vec<_> = (0..16).map(|_| client()).collect();
    let drainer = async {
        loop {
            stores.drainer.drain().await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let mut stored = vec![];
    tokio::select! {
        () = drainer => {}
        done = futures::future::join_all(clients) => {
            for of_client in done {
                stored.extend(of_client.unwrap());
            }
        }
    }
    let (moody, waiting) = (started.elapsed(), files_below(home.path()));
    // What counts as stored is in the bucket, or waits.
    bucket.always(Mood::Normal);
    check(&stored, &stores.artifacts, &stores.logs).await;
    while !stores.drainer.drain().await {
        assert!(
            started.elapsed() < Duration::from_secs(300),
            "files still wait"
        );
    }
    assert_eq!(files_below(home.path()), 0);
    check(&stored, artifacts.as_ref(), logs.as_ref()).await;
    uploads_are_closed(&bucket).await;
    println!(
        "{kind:?}: {runs} runs in {moody:?}, {} requests; {} artifacts and {} logs count as stored, {waiting} files waited, {} uploads in parts",
        bucket.asked().len(),
        stored.iter().filter(|(_, artifact, _)| *artifact).count(),
        stored.iter().filter(|(_, _, log)| *log).count(),
        bucket.begun_uploads(),
    );
    assert_eq!(stored.len() as u64, runs);
    assert!(waiting > 0, "the bucket was not moody enough");
}

/// Whatever counts as stored can be read, byte for byte.
async fn check(stored: &[(u64, bool, bool)], artifacts: &dyn ArtifactStore, logs: &dyn LogStore) {
    for (number, artifact_stored, log_stored) in stored {
        let (artifact, log) = files_of(*number);
        let run = format!("r{number}");
        if *artifact_stored {
            let found = read(artifacts.open(&RunId::new(&run), "out.bin").await.unwrap()).await;
            assert!(
                found.as_deref() == Some(bytes_of(&artifact)),
                "artifact of {run}"
            );
        }
        if *log_stored {
            let found = read(logs.open(&folder(&run), "w.log").await.unwrap()).await;
            assert!(found.as_deref() == Some(bytes_of(&log)), "log of {run}");
        }
    }
}
