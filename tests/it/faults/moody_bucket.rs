//! A bucket that answers at random: 200, 403, 429, 500, 503, cut connections, crawling.

use super::bucket_steps::{Stores, files_below, folder, on_both, uploads_are_closed};
use crate::support::{
    fake_bucket::{FakeBucket, Kind, Mood},
    files::{memory_file, read},
    start,
};
use janitor_runner::{
    adapters::objects::{ObjectArtifacts, ObjectLogs},
    domain::name::RunId,
    ports::{ArtifactStore, LogStore},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

on_both!(moody_bucket_loses_nothing);

/// The numbers of a seed, one after the other.
pub struct Numbers(pub u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    pub fn mood(&mut self) -> Mood {
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

/// The contents of a run's files: an artifact and a log, few of them large.
pub fn files_of(number: u64) -> [Vec<u8>; 2] {
    let mut numbers = Numbers(number);
    let mut content = |large: bool| -> Vec<u8> {
        let size = match large {
            // Too large for one request to S3.
            true if number % 100 == 57 => 9 << 20,
            true => (1 << 20) + numbers.below(8 << 20),
            false => numbers.below(4096),
        };
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        for chunk in bytes.chunks_mut(8) {
            let random = numbers.below(u64::MAX).to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
        bytes
    };
    [content(number % 50 == 7), content(number % 100 == 9)]
}

/// What a run's store operations returned: its number, and whether artifact and log count as stored.
type Stored = (u64, bool, bool);

/// The stores with and without a backup directory.
struct Both {
    with_backup: Stores,
    artifacts: ObjectArtifacts,
    logs: ObjectLogs,
    next: AtomicU64,
}

impl Both {
    /// Stores the files of runs until there are none. Those with odd numbers have no backup directory.
    async fn client(self: Arc<Self>, runs: u64) -> Vec<Stored> {
        let mut stored = vec![];
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= runs {
                return stored;
            }
            let [artifact, log] = files_of(number);
            let (artifact, log) = (
                memory_file("out.bin", &artifact),
                memory_file("w.log", &log),
            );
            let (name, has_backup) = (format!("r{number}"), number.is_multiple_of(2));
            let (artifacts, logs): (&dyn ArtifactStore, &dyn LogStore) = match has_backup {
                true => (&self.with_backup.artifacts, &self.with_backup.logs),
                false => (&self.artifacts, &self.logs),
            };
            let artifact = artifacts.store(&RunId::new(&name), &[artifact]).await;
            let log = logs.store(&folder(&name), &[log], start()).await;
            let (artifact, log) = (artifact.is_ok(), log.is_ok());
            assert!(
                artifact && log || !has_backup,
                "the backup directory takes all"
            );
            stored.push((number, artifact, log));
        }
    }

    /// Stores the files of so many runs, while the drainer works.
    async fn store(self: &Arc<Self>, runs: u64) -> Vec<Stored> {
        let clients = (0..16).map(|_| tokio::spawn(self.clone().client(runs)));
        let drainer = async {
            loop {
                self.with_backup.drainer.drain().await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        tokio::select! {
            () = drainer => vec![],
            done = futures::future::join_all(clients) => {
                done.into_iter().flat_map(Result::unwrap).collect()
            }
        }
    }
}

/// 100 runs, or as many as `MOODY_RUNS` says.
async fn moody_bucket_loses_nothing(kind: Kind) {
    let runs: u64 = std::env::var("MOODY_RUNS").map_or(100, |runs| runs.parse().unwrap());
    let (bucket, home) = (FakeBucket::start().await, tempfile::tempdir().unwrap());
    let objects = bucket.objects_of(kind).await;
    let both = Arc::new(Both {
        with_backup: Stores::new(objects.clone(), home.path()),
        artifacts: ObjectArtifacts::new(objects.clone()),
        logs: ObjectLogs::new(objects, ""),
        next: AtomicU64::new(0),
    });
    let mut numbers = Numbers(1);
    bucket.decide(move |_| numbers.mood());
    let started = Instant::now();
    let stored = both.store(runs).await;
    let (moody, waiting) = (started.elapsed(), files_below(home.path()));
    // What counts as stored is in the bucket, or waits.
    bucket.always(Mood::Normal);
    let with_backup = &both.with_backup;
    check(&stored, &with_backup.artifacts, &with_backup.logs).await;
    while !with_backup.drainer.drain().await {
        assert!(
            started.elapsed() < Duration::from_secs(300),
            "files still wait"
        );
    }
    assert_eq!(files_below(home.path()), 0);
    check(&stored, &both.artifacts, &both.logs).await;
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
async fn check(stored: &[Stored], artifacts: &dyn ArtifactStore, logs: &dyn LogStore) {
    for (number, artifact_stored, log_stored) in stored {
        let [artifact, log] = files_of(*number);
        let run = format!("r{number}");
        if *artifact_stored {
            let found = read(artifacts.open(&RunId::new(&run), "out.bin").await.unwrap()).await;
            assert!(found == Some(artifact), "artifact of {run}");
        }
        if *log_stored {
            let found = read(logs.open(&folder(&run), "w.log").await.unwrap()).await;
            assert!(found == Some(log), "log of {run}");
        }
    }
}
