//! `QueueNotifier`.

use super::{contract, steps::*};
use crate::support::{start, values::*};
use janitor_runner::ports::{ActiveRunStore, Catalog, PauseStore, QueueNotifier, QueueStore};
use std::time::Duration;

contract!(new_items_notify_waiters,);

async fn new_items_notify_waiters<
    S: QueueStore + Catalog + ActiveRunStore + QueueNotifier + PauseStore,
>(
    store: &S,
) {
    let notified = || async {
        tokio::time::timeout(Duration::from_secs(5), store.wait_for_items())
            .await
            .unwrap()
    };
    queued(store, &["aa", "bb"]).await;
    assert_eq!(notified().await, 2);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), store.wait_for_items())
            .await
            .is_err()
    );
    let run = store.claim(claim("r1")).await.unwrap().unwrap().run;
    store.release(&run.id, &run.token, start()).await.unwrap();
    assert_eq!(notified().await, 1);
    store.pause(pause("all", "")).await.unwrap();
    store.unpause(&scope("all", "")).await.unwrap();
    assert!(notified().await >= 1);
}
