//! Counts items that were opened, for `QueueNotifier`.

use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Items opened since somebody asked.
#[derive(Debug, Default)]
pub(in crate::adapters) struct Availability {
    count: AtomicUsize,
    told: Notify,
}

impl Availability {
    pub(in crate::adapters) fn add(&self, items: usize) {
        if items > 0 {
            self.count.fetch_add(items, Ordering::AcqRel);
            self.told.notify_one();
        }
    }

    /// Waits for some, and answers how many.
    pub(in crate::adapters) async fn take(&self) -> usize {
        loop {
            let told = self.told.notified();
            let items = self.count.swap(0, Ordering::AcqRel);
            if items > 0 {
                return items;
            }
            told.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{sync::Arc, time::Duration};

    #[tokio::test]
    async fn what_was_opened_before_and_while_waiting_is_told_once() {
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
        assert!(!waiting.is_finished());
        availability.add(1);
        assert_eq!(waiting.await.unwrap(), 1);
    }
}
