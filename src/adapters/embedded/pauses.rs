//! Pauses and concurrency limits on the embedded stores.

use super::{keys, store::Embedded};
use crate::{
    domain::{
        pause::{ConcurrencyLimit, Pause, Scope},
        time::Time,
    },
    ports::{Fault, PauseStore},
};
use async_trait::async_trait;

/// How many items are assumed to become claimable when a pause or a limit ends.
///
/// They are not counted, since that would take a scan of the queue. So many waiting workers look at
/// once, and each that finds an item has the next one look.
const ESTIMATED_ITEMS: usize = 16;

#[async_trait]
impl PauseStore for Embedded {
    #[tracing::instrument(
        name = "embedded.pauses.pause", level = "debug", skip_all,
        fields(scope.kind = pause.scope.kind(), scope.name = pause.scope.name())
    )]
    async fn pause(&self, pause: Pause) -> Result<(), Fault> {
        self.write("pause", move |txn, index| {
            txn.put(keys::pause(&pause.scope), &pause)?;
            index.set_pause(&pause.scope.clone(), Some(pause));
            Ok(())
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.pauses.unpause", level = "debug", skip_all,
        fields(scope.kind = scope.kind(), scope.name = scope.name())
    )]
    async fn unpause(&self, scope: &Scope) -> Result<bool, Fault> {
        let scope = scope.clone();
        let was_paused = self.write("end a pause", move |txn, index| {
            txn.delete(keys::pause(&scope));
            Ok::<_, Fault>(index.set_pause(&scope, None))
        });
        let was_paused = was_paused.await?;
        self.availability.add(ESTIMATED_ITEMS);
        Ok(was_paused)
    }

    #[tracing::instrument(name = "embedded.pauses.pauses", level = "debug", skip_all)]
    async fn pauses(&self, now: Time) -> Result<Vec<Pause>, Fault> {
        self.read_index(move |index| index.pauses(now).cloned().collect())
            .await
    }

    #[tracing::instrument(
        name = "embedded.pauses.set_limit", level = "debug", skip_all,
        fields(scope.kind = limit.scope.kind(), scope.name = limit.scope.name())
    )]
    async fn set_limit(&self, limit: ConcurrencyLimit) -> Result<(), Fault> {
        let set = self.write("limit", move |txn, index| {
            txn.put(keys::limit(&limit.scope), &limit)?;
            index.set_limit(&limit.scope, Some(limit.most));
            Ok::<_, Fault>(())
        });
        set.await?;
        // The new limit may be higher than the earlier one.
        self.availability.add(ESTIMATED_ITEMS);
        Ok(())
    }

    #[tracing::instrument(
        name = "embedded.pauses.remove_limit", level = "debug", skip_all,
        fields(scope.kind = scope.kind(), scope.name = scope.name())
    )]
    async fn remove_limit(&self, scope: &Scope) -> Result<bool, Fault> {
        let scope = scope.clone();
        let was_limited = self.write("end a limit", move |txn, index| {
            txn.delete(keys::limit(&scope));
            Ok::<_, Fault>(index.set_limit(&scope, None))
        });
        let was_limited = was_limited.await?;
        self.availability.add(ESTIMATED_ITEMS);
        Ok(was_limited)
    }

    #[tracing::instrument(name = "embedded.pauses.limits", level = "debug", skip_all)]
    async fn limits(&self) -> Result<Vec<ConcurrencyLimit>, Fault> {
        self.read_index(|index| index.limits().collect()).await
    }
}
