//! Counts items that became claimable, for the [`QueueNotifier`](crate::ports::QueueNotifier).

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The number of items that became claimable since the last [`Availability::take`].
#[derive(Debug, Default)]
pub(in crate::adapters) struct Availability {
    count: AtomicUsize,
    added: Notify,
}

impl Availability {
    /// Adds so many items, and wakes the one that waits.
    pub(in crate::adapters) fn add(&self, items: usize) {
        if items > 0 {
            self.count.fetch_add(items, Ordering::AcqRel);
            self.added.notify_one();
        }
    }

    /// Waits until there are items, and returns how many.
    pub(in crate::adapters) async fn take(&self) -> usize {
        loop {
            // Registered before the count is read: items that are added in between are not missed.
            let added = self.added.notified();
            let items = self.count.swap(0, Ordering::AcqRel);
            if items > 0 {
                return items;
            }
            added.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, time::Duration};

    #[tokio::test]
    async fn items_added_before_and_during_a_wait_are_returned_once() {
        let availability = Arc::new(Availability::default());
        availability.add(0);
        availability.add(2);
        availability.add(3);
        assert_eq!(availability.take().await, 5);
        let waiting = tokio::spawn({
            let availability = availability.clone();
            async move { availability.take().await }
        });
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert!(!waiting.is_finished(), "it returned without items");
        availability.add(1);
        assert_eq!(waiting.await.unwrap(), 1);
    }
}
