//! A claim that was made though its caller got no reply.

use crate::{
    contract::steps::*,
    support::{
        servers::{self, Private},
        start,
        values::*,
    },
};
use janitor_runner::{
    adapters::postgres::schema,
    domain::queue::Bucket,
    ports::{ActiveRunStore, ActiveRunStoreError, QueueStore},
};
use std::time::Duration;

/// Has each claim take a second, so that the server can be stopped in the midst of it.
const SLOW_CLAIMS: &str = "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM pg_sleep(1); RETURN NEW; END $$;
    CREATE TRIGGER slow BEFORE INSERT ON runner_active_run FOR EACH ROW EXECUTE FUNCTION slow()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn released_orphan_keeps_what_was_queued_meanwhile() {
    let mut private = Private::start(&["postgres"]);
    let url = private.url("postgres");
    schema::migrate(&url).await.unwrap();
    let store = servers::open_postgres(&url).await;
    queued(&store, &["aa"]).await;
    servers::execute(&url, SLOW_CLAIMS).await;
    let claiming = store.clone();
    let claiming = tokio::spawn(async move { claiming.claim(claim("lost")).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    private.control("stop", "postgres");
    let reply = claiming.await.unwrap();
    assert!(
        matches!(reply, Err(ActiveRunStoreError::Fault(_))),
        "{reply:?}"
    );
    private.control("continue", "postgres");
    // Nobody knows of it, but the item is held.
    let mut active = vec![];
    for _ in 0..100 {
        active = ActiveRunStore::list(&store).await.unwrap_or_default();
        if !active.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(active.len(), 1, "the claim was not made");
    servers::execute(&url, "DROP TRIGGER slow ON runner_active_run").await;
    let mut request = enqueue_request("aa", Bucket::Manual, -1.0);
    request.command = "by hand".into();
    store.enqueue(batch(vec![request])).await.unwrap();
    for attempt in 0..100 {
        if let Some(claimed) = store.claim(claim(&format!("r{attempt}"))).await.unwrap() {
            let item = claimed.run.item;
            assert_eq!(
                (item.bucket, item.command.as_str()),
                (Bucket::Manual, "by hand")
            );
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the item is held for ever at {}", start());
}
