//! Where the held items at the head of the queue end.

use crate::domain::queue::Bucket;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A position in the queue's order: bucket, priority and id.
pub(super) type QueuePosition = (Bucket, i64, i64);
/// The position before all items.
pub(super) const QUEUE_START: QueuePosition = (Bucket::UpdateExistingMp, i64::MIN, i64::MIN);
/// How long a cursor is used: items that other processes add before it, without their notification
/// being heard, are claimed after that time at the latest.
const CURSOR_TTL: Duration = Duration::from_millis(250);

/// The position up to which every item is held, as far as this process knows, so that a claim does
/// not look at all held items first (ADR 5).
///
/// It is reset when this process releases or adds an item before it, and after [`CURSOR_TTL`]
/// anyway.
#[derive(Debug)]
pub(super) struct ScanCursor(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Changes whenever an item becomes available, so that a scan that began before that does not
    /// move the cursor beyond the item.
    generation: u64,
    position: QueuePosition,
    /// When the position was last reset.
    reset: Instant,
}

impl State {
    fn reset(&mut self) {
        self.generation += 1;
        self.position = QUEUE_START;
        self.reset = Instant::now();
    }
}

impl Default for ScanCursor {
    fn default() -> Self {
        Self(Mutex::new(State {
            generation: 1,
            position: QUEUE_START,
            reset: Instant::now(),
        }))
    }
}

impl ScanCursor {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the generation, which [`ScanCursor::advance`] takes, and the position to scan from.
    pub(super) fn start(&self) -> (u64, QueuePosition) {
        let mut state = self.state();
        if state.reset.elapsed() > CURSOR_TTL {
            state.reset();
        }
        (state.generation, state.position)
    }

    /// Moves on to a position up to which a scan of this generation left no free item.
    pub(super) fn advance(&self, generation: u64, position: QueuePosition) {
        let mut state = self.state();
        if state.generation == generation {
            state.position = state.position.max(position);
        }
    }

    /// Records that an item became available at a position, `None` when it is not known where.
    pub(super) fn item_available(&self, position: Option<QueuePosition>) {
        let mut state = self.state();
        if position.is_none_or(|position| position <= state.position) {
            state.reset();
        } else {
            // A scan under way may be about to move the cursor beyond the item.
            state.generation += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(priority: i64) -> QueuePosition {
        (Bucket::Default, priority, 0)
    }

    #[test]
    fn cursor_only_moves_forward() {
        let cursor = ScanCursor::default();
        let (generation, after) = cursor.start();
        assert_eq!(after, QUEUE_START);
        cursor.advance(generation, position(5));
        cursor.advance(generation, position(3));
        assert_eq!(cursor.start(), (generation, position(5)));
    }

    #[test]
    fn item_behind_the_cursor_stops_scans_under_way() {
        let cursor = ScanCursor::default();
        let (generation, _) = cursor.start();
        cursor.advance(generation, position(5));
        cursor.item_available(Some(position(9)));
        cursor.advance(generation, position(10));
        assert_eq!(cursor.start().1, position(5));
    }

    #[test]
    fn item_before_the_cursor_resets_it() {
        let cursor = ScanCursor::default();
        let (generation, _) = cursor.start();
        cursor.advance(generation, position(5));
        cursor.item_available(Some(position(4)));
        assert_eq!(cursor.start().1, QUEUE_START);
    }

    #[test]
    fn cursor_expires() {
        let cursor = ScanCursor::default();
        let (generation, _) = cursor.start();
        cursor.advance(generation, position(5));
        std::thread::sleep(CURSOR_TTL + Duration::from_millis(5));
        assert_eq!(cursor.start().1, QUEUE_START);
    }
}
