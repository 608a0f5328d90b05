//! Pauses, limits and parked items on the embedded stores.

use super::{Embedded, keys, queue, records::StoredItem};
use crate::{
    domain::{
        pause::{ConcurrencyLimit, Pause, Scope},
        queue::QueueId,
        retry::ItemState,
        time::Time,
    },
    ports::{Fault, Parking, PauseStore, QueueNotifier, parking::QueueEntry},
};
use async_trait::async_trait;

/// What opens when a pause or a limit ends is not counted; so many waiting workers look at once, and each that finds
/// something has the next one look.
const SOME: usize = 16;

#[async_trait]
impl PauseStore for Embedded {
    async fn pause(&self, pause: Pause) -> Result<(), Fault> {
        self.write("pause", move |txn, hot| {
            txn.put(keys::pause(&pause.scope), &pause)?;
            hot.set_pause(&pause.scope.clone(), Some(pause));
            Ok(())
        })
        .await
    }

    async fn unpause(&self, scope: &Scope) -> Result<bool, Fault> {
        let scope = scope.clone();
        let resumed = self.write("end a pause", move |txn, hot| {
            txn.delete(keys::pause(&scope));
            Ok::<_, Fault>(hot.set_pause(&scope, None))
        });
        let resumed = resumed.await?;
        self.availability.add(SOME);
        Ok(resumed)
    }

    async fn pauses(&self, now: Time) -> Result<Vec<Pause>, Fault> {
        self.look(move |hot| hot.pauses(now).cloned().collect())
            .await
    }

    async fn set_limit(&self, limit: ConcurrencyLimit) -> Result<(), Fault> {
        let limited = self.write("limit", move |txn, hot| {
            txn.put(keys::limit(&limit.scope), &limit)?;
            hot.set_limit(&limit.scope, Some(limit.most));
            Ok::<_, Fault>(())
        });
        limited.await?;
        self.availability.add(SOME);
        Ok(())
    }

    async fn remove_limit(&self, scope: &Scope) -> Result<bool, Fault> {
        let scope = scope.clone();
        let lifted = self.write("end a limit", move |txn, hot| {
            txn.delete(keys::limit(&scope));
            Ok::<_, Fault>(hot.set_limit(&scope, None))
        });
        let lifted = lifted.await?;
        self.availability.add(SOME);
        Ok(lifted)
    }

    async fn limits(&self) -> Result<Vec<ConcurrencyLimit>, Fault> {
        self.look(|hot| hot.limits().collect()).await
    }
}

fn entry(StoredItem { item, state, .. }: StoredItem) -> QueueEntry {
    QueueEntry { item, state }
}

#[async_trait]
impl Parking for Embedded {
    async fn entry(&self, id: QueueId) -> Result<Option<QueueEntry>, Fault> {
        self.look(move |hot| hot.item(id).cloned().map(entry)).await
    }

    async fn parked(&self, after: Option<QueueId>, limit: usize) -> Result<Vec<QueueEntry>, Fault> {
        self.look(move |hot| hot.parked(after, limit).into_iter().map(entry).collect())
            .await
    }

    async fn unpark(&self, ids: &[QueueId]) -> Result<Vec<QueueId>, Fault> {
        let ids = ids.to_vec();
        let released = self.write("release items", move |txn, hot| {
            let mut released = vec![];
            for id in ids {
                let Some(stored) = hot
                    .item(id)
                    .filter(|stored| !hot.is_held(id) && stored.state != ItemState::default())
                else {
                    continue;
                };
                let waited = stored.state.parked.is_some() || stored.state.not_before.is_some();
                let stored = StoredItem {
                    state: ItemState::default(),
                    ..stored.clone()
                };
                queue::put(txn, hot, stored)?;
                released.extend(waited.then_some(id));
            }
            Ok::<_, Fault>(released)
        });
        let released: Vec<QueueId> = released.await?;
        self.availability.add(released.len());
        Ok(released)
    }
}

#[async_trait]
impl QueueNotifier for Embedded {
    async fn wait_for_items(&self) -> usize {
        self.availability.take().await
    }
}
