//! What a store keeps when its process ends: each case fills a store, opens it again, and finds everything there.

use super::steps::*;
use crate::support::{open_again, servers, start, values::*};
use janitor_runner::{
    adapters::{embedded::Embedded, postgres::Postgres, redb::RedbKv, sled::SledKv},
    domain::{
        name::RunId,
        pause::{ConcurrencyLimit, Pause},
        queue::{Bucket, EnqueueRequest},
        retry::{Attempts, ItemState, Parked},
    },
    ports::{
        ActiveRunStore, Catalog, HostBackoffs, Outbox, Parking, PauseStore, QueueStore,
        RunRecorder, RunStore, ScheduleStore, active_runs::Renewal, host_backoff::HostBackoff,
    },
};
use tempfile::TempDir;

trait Stores:
    ActiveRunStore
    + Catalog
    + HostBackoffs
    + Outbox
    + Parking
    + PauseStore
    + QueueStore
    + RunRecorder
    + RunStore
    + ScheduleStore
{
}
impl Stores for Embedded {}
impl Stores for Postgres {}

/// Where a store is, so that it can be opened more than once.
trait Location {
    type Store: Stores;
    async fn new() -> Self;
    async fn open(&self) -> Self::Store;
}

struct Sled(TempDir);

impl Location for Sled {
    type Store = Embedded;

    async fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> Embedded {
        open_again(|| SledKv::open(self.0.path())).await
    }
}

struct Redb(TempDir);

impl Location for Redb {
    type Store = Embedded;

    async fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    async fn open(&self) -> Embedded {
        open_again(|| RedbKv::open(self.0.path())).await
    }
}

struct DatabaseUrl(String);

impl Location for DatabaseUrl {
    type Store = Postgres;

    async fn new() -> Self {
        Self(servers::database().await)
    }

    async fn open(&self) -> Postgres {
        servers::open_postgres(&self.0).await
    }
}

/// Runs each case on sled, redb and Postgres. A store in memory does not outlive its process.
macro_rules! persistent_stores {
    ($($case:ident),+ $(,)?) => {
        mod sled {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case::<super::Sled>().await;
            })+
        }
        mod redb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case::<super::Redb>().await;
            })+
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case::<super::DatabaseUrl>().await;
            })+
        }
    };
}

persistent_stores!(
    pauses_and_limits_survive_reopening,
    parked_and_snoozed_items_survive_reopening,
    deferred_enqueue_survives_reopening,
    host_backoffs_survive_reopening,
    follow_ups_and_outbox_entries_survive_reopening,
    active_runs_with_leases_survive_reopening,
);

async fn pauses_and_limits_survive_reopening<L: Location>() {
    let location = L::new().await;
    let store = location.open().await;
    let until = Pause {
        until: Some(at(3600)),
        ..pause("campaign", "gen")
    };
    let limit = ConcurrencyLimit {
        scope: scope("host", "h.example"),
        most: 3,
    };
    store.pause(pause("worker", "w1")).await.unwrap();
    store.pause(until.clone()).await.unwrap();
    store.set_limit(limit.clone()).await.unwrap();
    queued(&store, &["aa"]).await;
    drop(store);

    let store = location.open().await;
    assert_eq!(
        store.pauses(start()).await.unwrap(),
        [until, pause("worker", "w1")]
    );
    assert_eq!(store.limits().await.unwrap(), [limit]);
    assert_eq!(store.claim(claim("r1")).await.unwrap(), None);
    assert!(store.unpause(&scope("campaign", "gen")).await.unwrap());
    assert!(store.claim(claim("r2")).await.unwrap().is_some());
}

async fn parked_and_snoozed_items_survive_reopening<L: Location>() {
    let location = L::new().await;
    let store = location.open().await;
    queued(&store, &["aa", "bb"]).await;
    let (first, second) = (leased(&store, "r1").await, leased(&store, "r2").await);
    let parked = ItemState {
        attempts: Attempts::from([("flaky".into(), 2)]),
        parked: Some(Parked {
            reason: "failed too often".into(),
            since: at(5),
        }),
        ..ItemState::default()
    };
    let snoozed = ItemState {
        not_before: Some(at(60)),
        ..ItemState::default()
    };
    requeue_abandoned(&store, &first, parked.clone()).await;
    requeue_abandoned(&store, &second, snoozed.clone()).await;
    drop(store);

    let store = location.open().await;
    let entry = store.entry(first.item.id).await.unwrap().unwrap();
    assert_eq!(entry.state, parked);
    assert_eq!(entry.item, first.item);
    assert_eq!(store.parked(None, 9).await.unwrap(), [entry]);
    let entry = store.entry(second.item.id).await.unwrap().unwrap();
    assert_eq!(entry.state, snoozed);
    assert_eq!(queue_order(&store).await, ["aa", "bb"]);
    let early = ActiveRunStore::claim(&store, claim("r3")).await.unwrap();
    assert_eq!(early, None);
    let mut due = claim("r4");
    due.now = at(60);
    let next = store.claim(due).await.unwrap().unwrap();
    assert_eq!(next.run.item, second.item);
}

async fn deferred_enqueue_survives_reopening<L: Location>() {
    let location = L::new().await;
    let store = location.open().await;
    queued(&store, &["aa"]).await;
    let run = leased(&store, "r1").await;
    let newer = EnqueueRequest {
        command: "newer".into(),
        ..enqueue_request("aa", Bucket::Manual, 1.0)
    };
    store.enqueue(batch(vec![newer])).await.unwrap();
    drop(store);

    let store = location.open().await;
    store.release(&run.id, &run.token, at(1)).await.unwrap();
    let next = leased(&store, "r2").await;
    assert_eq!(next.item.id, run.item.id);
    assert_eq!(next.item.command, "newer");
    assert_eq!(next.item.bucket, Bucket::Manual);
}

async fn host_backoffs_survive_reopening<L: Location>() {
    let location = L::new().await;
    let store = location.open().await;
    let backoff = HostBackoff {
        host: "slow.example".into(),
        until: at(120),
    };
    store
        .upload_codebases(vec![codebase_at("aa", "https://slow.example/x")])
        .await
        .unwrap();
    let request = enqueue_request("aa", Bucket::Default, 1.0);
    store.enqueue(batch(vec![request])).await.unwrap();
    store.back_off_host(backoff.clone()).await.unwrap();
    drop(store);

    let store = location.open().await;
    assert_eq!(store.backed_off_hosts(start()).await.unwrap(), [backoff]);
    assert_eq!(store.claim(claim("r1")).await.unwrap(), None);
    let mut due = claim("r2");
    due.now = at(120);
    assert!(store.claim(due).await.unwrap().is_some());
}

async fn follow_ups_and_outbox_entries_survive_reopening<L: Location>() {
    let location = L::new().await;
    let store = location.open().await;
    for id in ["r1", "r2"] {
        let run = active(&store, "aa", id).await;
        let new = new_run(&run, full_run(&run));
        store.record(new).await.unwrap();
    }
    let follow_ups = store.follow_ups(9).await.unwrap();
    let entries = store.pending(9).await.unwrap();
    assert_eq!(follow_ups.len(), 2);
    assert_eq!(entries.len(), 2);
    drop(store);

    let store = location.open().await;
    assert_eq!(store.follow_ups(9).await.unwrap(), follow_ups);
    assert_eq!(store.pending(9).await.unwrap(), entries);
    // New ids continue behind the old ones.
    let run = active(&store, "aa", "r3").await;
    let new = new_run(&run, full_run(&run));
    store.record(new).await.unwrap();
    assert_eq!(store.follow_ups(9).await.unwrap()[..2], follow_ups);
    assert_eq!(store.pending(9).await.unwrap()[..2], entries);
    assert_eq!(store.pending(9).await.unwrap().len(), 3);
}

async fn active_runs_with_leases_survive_reopening<L: Location>() {
    let location = L::new().await;
    let store = location.open().await;
    queued(&store, &["aa"]).await;
    let run = leased(&store, "r1").await;
    store.cancel(&run.id, "enough").await.unwrap();
    let run = store.get(&run.id).await.unwrap().unwrap();
    drop(store);

    let store = location.open().await;
    assert_eq!(store.get(&run.id).await.unwrap(), Some(run.clone()));
    assert_eq!(store.get(&RunId::new("r2")).await.unwrap(), None);
    assert_eq!(run.lease_until, Some(at(120)));
    assert_eq!(run.cancel.as_deref(), Some("enough"));
    assert_eq!(store.claim(claim("r3")).await.unwrap(), None);
    let renewal = Renewal {
        now: at(50),
        lease: lease(),
    };
    let renewed = store.renew(&run.id, &run.token, renewal).await.unwrap();
    assert_eq!(renewed.lease_until, Some(at(170)));
}
