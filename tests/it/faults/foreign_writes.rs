//! Other services write the Janitor's tables by SQL: what they write has the effect that the API has, and nothing of ours makes
//! their statements fail.

use crate::{
    contract::steps::*,
    support::{servers, start, values::*},
};
use janitor_runner::{
    adapters::postgres::Postgres,
    domain::{
        active_run::ActiveRun,
        publish::PublishStatus,
        queue::{Bucket, QueueItem},
        retry::{Attempts, Disposition, ItemState, Parked},
    },
    ports::{
        ActiveRunStore, Catalog, Event, Outbox, Parking, QueueNotifier, QueueStore, RunRecorder,
        RunStore, ScheduleStore, outbox::OutboxEntry, run_recorder::NewRun,
    },
};
use std::time::Duration;
use tokio::time::timeout;

struct Database {
    url: String,
    store: Postgres,
}

impl Database {
    async fn new() -> Self {
        let url = servers::database().await;
        let store = servers::open_postgres(&url).await;
        Self { url, store }
    }

    async fn sql(&self, sql: &str) {
        servers::execute(&self.url, sql).await;
    }

    async fn items(&self) -> Vec<QueueItem> {
        QueueStore::list(&self.store, 99).await.unwrap()
    }

    /// The only item, parked or snoozed after a run.
    async fn held_back(&self, state: ItemState) {
        let run = match leased(&self.store, "first").await {
            run if run.item.key.codebase.as_str() == "aa" => run,
            run => panic!("another item is first: {run:?}"),
        };
        requeue_abandoned(&self.store, &run, state).await;
        assert_eq!(self.store.claim(claim("none")).await.unwrap(), None);
    }

    async fn claimed(&self, run: &str) -> ActiveRun {
        self.store.claim(claim(run)).await.unwrap().unwrap().run
    }
}

fn parked() -> ItemState {
    ItemState {
        attempts: Attempts::from([("vanished".into(), 3)]),
        parked: Some(Parked {
            reason: "again and again".into(),
            since: at(5),
        }),
        ..ItemState::default()
    }
}

fn snoozed() -> ItemState {
    ItemState {
        not_before: Some(at(99_999)),
        ..ItemState::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn item_queued_again_is_neither_parked_nor_snoozed() {
    // What the publisher, the site's webhook and the cron job do; the last is their way to queue again.
    for change in [
        "UPDATE queue SET bucket = 'update-existing-mp'",
        "UPDATE queue SET command = 'other'",
        "UPDATE queue SET context = 'newer'",
        "UPDATE queue SET refresh = true",
        "UPDATE queue SET priority = priority - 1",
        "INSERT INTO queue (codebase, suite, command, priority, bucket, context) VALUES ('aa', 'gen', 'true', 9, 'hook', 'c')
         ON CONFLICT (codebase, suite, coalesce(change_set, '')) DO UPDATE SET bucket = excluded.bucket, context = excluded.context,
             priority = excluded.priority, command = excluded.command WHERE queue.bucket >= excluded.bucket",
    ] {
        for state in [parked(), snoozed()] {
            let database = Database::new().await;
            queued(&database.store, &["aa"]).await;
            database.held_back(state).await;
            database.sql(change).await;
            let claimed = database.store.claim(claim("second")).await.unwrap();
            assert!(claimed.is_some(), "{change}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_updates_leave_an_item_parked() {
    let database = Database::new().await;
    queued(&database.store, &["aa"]).await;
    database.held_back(parked()).await;
    for change in [
        "bucket = bucket",
        "priority = priority + 5",
        "estimated_duration = interval '1 s'",
    ] {
        database.sql(&format!("UPDATE queue SET {change}")).await;
        assert_eq!(
            database.store.claim(claim("none")).await.unwrap(),
            None,
            "{change}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn update_of_held_item_takes_effect_when_its_run_ends() {
    let database = Database::new().await;
    queued(&database.store, &["aa", "bb"]).await;
    let run = database.claimed("r1").await;
    database
        .sql("UPDATE queue SET bucket = 'hook', command = 'other', context = 'newer', priority = 7, refresh = true WHERE codebase = 'aa'")
        .await;
    // A later bucket changes nothing any more.
    database
        .sql("UPDATE queue SET bucket = 'default', command = 'late' WHERE codebase = 'aa'")
        .await;
    database
        .store
        .record(new_run(&run, full_run(&run)))
        .await
        .unwrap();
    let items = database.items().await;
    assert_eq!(items.len(), 2);
    let again = &items[0];
    assert_eq!(again.key.codebase.as_str(), "aa");
    assert_ne!(again.id, run.item.id);
    assert_eq!(
        (
            again.bucket,
            again.command.as_str(),
            again.context.as_deref(),
            again.refresh
        ),
        (Bucket::Hook, "other", Some("newer"), true)
    );
    assert_eq!(database.claimed("r2").await.item, *again);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn update_of_held_item_is_merged_with_what_is_pending() {
    let database = Database::new().await;
    queued(&database.store, &["aa"]).await;
    let run = database.claimed("r1").await;
    let mut manual = enqueue_request("aa", Bucket::Manual, -1.0);
    manual.command = "by hand".into();
    database.store.enqueue(batch(vec![manual])).await.unwrap();
    database
        .sql("UPDATE queue SET bucket = 'hook', command = 'hook'")
        .await;
    database
        .store
        .release(&run.id, &run.token, start())
        .await
        .unwrap();
    let item = database.items().await.remove(0);
    assert_eq!(
        (item.bucket, item.command.as_str()),
        (Bucket::Manual, "by hand")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_held_item_ends_with_its_run() {
    let database = Database::new().await;
    queued(&database.store, &["aa", "bb"]).await;
    let (first, second) = (database.claimed("r1").await, database.claimed("r2").await);
    database.sql("DELETE FROM queue").await;
    database
        .store
        .record(new_run(&first, full_run(&first)))
        .await
        .unwrap();
    // One that was to go back to the queue is followed by a schedule, as if it had ended well.
    let lost = NewRun {
        disposition: Disposition::Requeue(parked()),
        ..new_run(&second, abandoned(&second))
    };
    database.store.record(lost).await.unwrap();
    assert_eq!(database.items().await, vec![]);
    assert_eq!(ActiveRunStore::list(&database.store).await.unwrap(), vec![]);
    assert_eq!(database.store.parked(None, 9).await.unwrap(), vec![]);
    assert_eq!(database.store.follow_ups(9).await.unwrap().len(), 2);
    database
        .sql("DO $$ BEGIN ASSERT (SELECT count(*) FROM runner_item) = 0; END $$")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_candidate_takes_its_item_along_unless_it_is_replaced_or_held() {
    let database = Database::new().await;
    let names = ["aa", "bb", "cc"];
    codebases(&database.store, &names).await;
    let candidates = names.map(new_candidate).into();
    database
        .store
        .upload_candidates(candidates, start())
        .await
        .unwrap();
    let held = database.claimed("r1").await;
    assert_eq!(held.item.key.codebase.as_str(), "aa");
    // The cron job replaces candidates in one transaction.
    database
        .sql(
            "BEGIN; DELETE FROM candidate WHERE codebase IN ('aa', 'bb');
             INSERT INTO candidate (suite, codebase, command) VALUES ('gen', 'bb', 'true'); COMMIT",
        )
        .await;
    assert_eq!(queue_order(&database.store).await, names);
    database
        .sql("DELETE FROM candidate WHERE codebase = 'cc'")
        .await;
    assert_eq!(queue_order(&database.store).await, ["aa", "bb"]);
    database.sql("DELETE FROM codebase WHERE name = 'bb'").await;
    assert_eq!(queue_order(&database.store).await, ["aa"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publish_status_set_by_others_is_an_event() {
    let database = Database::new().await;
    queued(&database.store, &["aa"]).await;
    let run = database.claimed("r1").await;
    database
        .store
        .record(new_run(&run, full_run(&run)))
        .await
        .unwrap();
    database
        .sql("UPDATE run SET publish_status = 'approved'")
        .await;
    database
        .sql("UPDATE run SET publish_status = publish_status, value = 3")
        .await;
    let entries = Outbox::pending(&database.store, 9).await.unwrap();
    let status = |entry: &OutboxEntry| match &entry.event {
        Event::PublishStatus(run) => Some(run.publish_status),
        _ => None,
    };
    let statuses: Vec<_> = entries.iter().map(status).collect();
    assert_eq!(statuses, [None, Some(PublishStatus::Approved)]);
    // Our own is one event, not two.
    database
        .store
        .set_publish_status(&run.id, PublishStatus::Rejected)
        .await
        .unwrap();
    assert_eq!(Outbox::pending(&database.store, 9).await.unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn items_of_others_wake_those_who_wait() {
    let database = Database::new().await;
    codebases(&database.store, &["aa", "bb"]).await;
    // The listener connects in the background.
    database
        .sql("INSERT INTO queue (codebase, suite, command) VALUES ('aa', 'gen', 'true')")
        .await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    while timeout(Duration::from_millis(100), database.store.wait_for_items())
        .await
        .is_ok()
    {}
    for change in [
        "INSERT INTO queue (codebase, suite, command) VALUES ('bb', 'gen', 'true')",
        "UPDATE queue SET bucket = 'manual' WHERE codebase = 'bb'",
    ] {
        let waiting = database.store.clone();
        let waiting = tokio::spawn(async move { waiting.wait_for_items().await });
        database.sql(change).await;
        let woken = timeout(Duration::from_millis(500), waiting).await;
        assert!(woken.expect(change).unwrap() > 0, "{change}");
        while timeout(Duration::from_millis(100), database.store.wait_for_items())
            .await
            .is_ok()
        {}
    }
    assert_eq!(
        database.claimed("r1").await.item.key.codebase.as_str(),
        "bb"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_of_others_succeed_whatever_becomes_of_our_tables() {
    let database = Database::new().await;
    queued(&database.store, &["aa", "bb"]).await;
    let run = database.claimed("r1").await;
    database
        .store
        .upload_candidates(vec![new_candidate("bb")], start())
        .await
        .unwrap();
    database
        .store
        .record(new_run(&run, full_run(&run)))
        .await
        .unwrap();
    database
        .sql(
            "ALTER TABLE runner_item RENAME TO gone_1; ALTER TABLE runner_active_run RENAME TO gone_2;
             ALTER TABLE runner_outbox RENAME TO gone_3; DROP FUNCTION runner_refresh_last_run CASCADE;
             DROP TRIGGER last_run_update ON run; DROP TRIGGER last_run_update ON new_result_branch",
        )
        .await;
    for statement in [
        "UPDATE queue SET bucket = 'manual', command = 'other'",
        "UPDATE run SET publish_status = 'approved'",
        "UPDATE new_result_branch SET absorbed = true",
        "DELETE FROM candidate",
        "INSERT INTO queue (codebase, suite, command) VALUES ('aa', 'more', 'true')",
        "DELETE FROM queue",
    ] {
        database.sql(statement).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn role_without_rights_to_our_tables_has_the_effect_too() {
    let database = Database::new().await;
    queued(&database.store, &["aa"]).await;
    database.held_back(parked()).await;
    let role = servers::unique("publisher");
    database
        .sql(&format!(
            "CREATE ROLE {role}; GRANT SELECT, UPDATE ON queue TO {role}; SET ROLE {role};
             UPDATE queue SET bucket = 'hook'; RESET ROLE; REVOKE ALL ON queue FROM {role}; DROP ROLE {role}"
        ))
        .await;
    assert!(
        database
            .store
            .claim(claim("second"))
            .await
            .unwrap()
            .is_some()
    );
}
