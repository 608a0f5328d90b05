//! What the tests share: a fake clock, a new store for each test, values to put into it, servers and workers.

pub mod fake_backchannel;
pub mod fake_bucket;
pub mod files;
pub mod fixture;
pub mod git_server;
pub mod load;
pub mod process;
pub mod random;
pub mod servers;
pub mod values;
pub mod worker_harness;

use janitor_runner::{
    adapters::{
        embedded::{Embedded, Kv},
        memory::MemoryKv,
        postgres::Postgres,
        redb::RedbKv,
        sled::SledKv,
    },
    domain::time::{self, Time},
    metrics::Metrics,
    ports::{Clock, Fault},
};
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use tempfile::TempDir;

/// The time at which a test starts.
pub fn start() -> Time {
    time::parse("start", "2026-11-23T10:00:00").unwrap()
}

/// A clock that stays at the start until a test advances it.
pub struct FakeClock(Mutex<Time>);

impl FakeClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(start())))
    }

    pub fn advance(&self, by: chrono::TimeDelta) {
        *self.0.lock().unwrap() += by;
    }
}

impl Clock for FakeClock {
    fn now(&self) -> Time {
        *self.0.lock().unwrap()
    }
}

/// A store, with the folder that it is in, if any.
pub struct Store<S> {
    pub store: S,
    _folder: Option<TempDir>,
}

pub fn in_memory() -> Embedded {
    Embedded::open(
        Arc::new(MemoryKv::default()),
        "memory",
        Arc::new(Metrics::new()),
    )
    .unwrap()
}

pub async fn memory() -> Store<Embedded> {
    Store {
        store: in_memory(),
        _folder: None,
    }
}

pub fn open_sled(folder: &Path) -> Embedded {
    let kv = SledKv::open(&folder.join("db")).unwrap();
    Embedded::open(Arc::new(kv), "sled", Arc::new(Metrics::new())).unwrap()
}

pub fn open_redb(folder: &Path) -> Embedded {
    let kv = RedbKv::open(&folder.join("db")).unwrap();
    Embedded::open(Arc::new(kv), "redb", Arc::new(Metrics::new())).unwrap()
}

/// Opens a store that was just closed: its writer thread may still hold the lock of the directory for a moment.
pub async fn open_again<K: Kv>(open: impl Fn() -> Result<K, Fault>) -> Embedded {
    for _ in 0..100 {
        if let Ok(kv) = open() {
            return Embedded::open(Arc::new(kv), "again", Arc::new(Metrics::new())).unwrap();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the store is still open elsewhere");
}

pub async fn sled() -> Store<Embedded> {
    in_folder(open_sled)
}

pub async fn redb() -> Store<Embedded> {
    in_folder(open_redb)
}

fn in_folder(open: fn(&Path) -> Embedded) -> Store<Embedded> {
    let folder = tempfile::tempdir().unwrap();
    Store {
        store: open(folder.path()),
        _folder: Some(folder),
    }
}

pub async fn postgres() -> Store<Postgres> {
    Store {
        store: servers::open_postgres(&servers::database().await).await,
        _folder: None,
    }
}

/// Runs each test on sled and on Postgres.
macro_rules! for_each_store {
    ($($test:ident),+ $(,)?) => { for_each_store!(@each [sled postgres] $($test),+); };
    (@each [$first:ident $($kind:ident)*] $($test:ident),+) => {
        mod $first {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(stringify!($first)).await;
            })+
        }
        for_each_store!(@each [$($kind)*] $($test),+);
    };
    (@each [] $($test:ident),+) => {};
}
pub(crate) use for_each_store;
