//! Where the held items at the head of the queue end.

use crate::domain::queue::Bucket;
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// A place in the queue's order.
pub(super) type Place = (Bucket, i64, i64);
/// Before all others.
pub(super) const FIRST: Place = (Bucket::UpdateExistingMp, i64::MIN, i64::MIN);
/// Items that other processes add before the frontier are seen after so long.
const FRONTIER_HOLDS: Duration = Duration::from_millis(250);

/// The place in the queue up to which every item is held, as far as this process knows: so that a claim does not look at
/// all held items first. It is forgotten when this process frees or adds an item before it, and after a moment anyway.
#[derive(Debug)]
pub(super) struct Frontier(Mutex<(u64, Place, Instant)>);

impl Default for Frontier {
    fn default() -> Self {
        Self(Mutex::new((1, FIRST, Instant::now())))
    }
}

impl Frontier {
    /// Where to look from, and what proves later that it was not forgotten meanwhile.
    pub(super) fn start(&self) -> (u64, Place) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.2.elapsed() > FRONTIER_HOLDS {
            *known = (known.0 + 1, FIRST, Instant::now());
        }
        (known.0, known.1)
    }

    pub(super) fn move_to(&self, generation: u64, place: Place) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 == generation {
            known.1 = known.1.max(place);
        }
    }

    /// An item is open that was not; none means that it is not known which.
    pub(super) fn opened(&self, place: Option<Place>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if place.is_none_or(|place| place <= known.1) {
            *known = (known.0 + 1, FIRST, Instant::now());
        } else {
            // A claim under way may be about to move beyond it.
            known.0 += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(priority: i64) -> Place {
        (Bucket::Default, priority, 0)
    }

    #[test]
    fn it_moves_on_and_is_forgotten_when_something_opens_before_it() {
        let frontier = Frontier::default();
        let (generation, after) = frontier.start();
        assert_eq!(after, FIRST);
        frontier.move_to(generation, place(5));
        frontier.move_to(generation, place(3));
        assert_eq!(frontier.start(), (generation, place(5)));
        // Something behind it: it stays, but a claim under way does not move it.
        frontier.opened(Some(place(9)));
        frontier.move_to(generation, place(10));
        assert_eq!(frontier.start().1, place(5));
        frontier.opened(Some(place(4)));
        assert_eq!(frontier.start().1, FIRST);
    }

    #[test]
    fn it_is_forgotten_after_a_moment() {
        let frontier = Frontier::default();
        let (generation, _) = frontier.start();
        frontier.move_to(generation, place(5));
        std::thread::sleep(FRONTIER_HOLDS + Duration::from_millis(5));
        assert_eq!(frontier.start().1, FIRST);
    }
}
