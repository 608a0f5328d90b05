//! The queue: its order, and what happens when an item is added that is there already.

use super::{
    Invalid,
    name::{CampaignName, CodebaseName},
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// The id of a queue item.
pub type QueueId = i64;

/// Classes of queue items; the first is served first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs)]
pub enum Bucket {
    UpdateExistingMp,
    Manual,
    Control,
    Hook,
    Reschedule,
    UpdateNewMp,
    MissingDeps,
    #[default]
    Default,
}

impl Bucket {
    /// All buckets, in order.
    pub const ALL: [Self; 8] = [
        Self::UpdateExistingMp,
        Self::Manual,
        Self::Control,
        Self::Hook,
        Self::Reschedule,
        Self::UpdateNewMp,
        Self::MissingDeps,
        Self::Default,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::UpdateExistingMp => "update-existing-mp",
            Self::Manual => "manual",
            Self::Control => "control",
            Self::Hook => "hook",
            Self::Reschedule => "reschedule",
            Self::UpdateNewMp => "update-new-mp",
            Self::MissingDeps => "missing-deps",
            Self::Default => "default",
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Bucket {
    type Err = Invalid;
    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::ALL
            .into_iter()
            .find(|bucket| bucket.as_str() == text)
            .ok_or_else(|| {
                Invalid::new(
                    "bucket",
                    format!(
                        "{text:?} is none of {}",
                        Self::ALL.map(Self::as_str).join(", ")
                    ),
                )
            })
    }
}

/// What there is at most one queue item of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[expect(missing_docs)]
pub struct QueueKey {
    pub codebase: CodebaseName,
    pub campaign: CampaignName,
    pub change_set: Option<String>,
}

/// One pending run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs)]
pub struct QueueItem {
    pub id: QueueId,
    #[serde(flatten)]
    pub key: QueueKey,
    pub bucket: Bucket,
    /// Smaller is sooner, within the bucket.
    pub priority: i64,
    pub command: String,
    pub context: Option<String>,
    /// Seconds.
    pub estimated_duration: Option<f64>,
    pub refresh: bool,
    pub requester: Option<String>,
}

/// A wish to have something run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs)]
pub struct EnqueueRequest {
    #[serde(flatten)]
    pub key: QueueKey,
    pub bucket: Bucket,
    /// Added to the smallest priority in the queue.
    pub offset: f64,
    pub command: String,
    pub context: Option<String>,
    /// Seconds.
    pub estimated_duration: Option<f64>,
    pub refresh: bool,
    pub requester: Option<String>,
}

/// What is left of an [`EnqueueRequest`] that found its item in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// The item stays as it is.
    Unchanged,
    /// The item was updated.
    Updated,
    /// It was, and what is known of its earlier runs holds it back no more: it is other work now, or somebody asked for it by
    /// hand, or it came into an earlier bucket.
    Renewed,
}

impl EnqueueRequest {
    /// The priority of a new item: the smallest in the queue (0 when empty) plus the offset, fractions dropped.
    pub fn priority(&self, smallest: Option<i64>) -> i64 {
        // A float cast saturates, so no offset can wrap around.
        #[expect(clippy::cast_possible_truncation)]
        let offset = self.offset.trunc() as i64;
        smallest.unwrap_or(0).saturating_add(offset)
    }

    /// The item that this makes in a queue without one of its key.
    pub fn into_item(self, id: QueueId, smallest: Option<i64>) -> QueueItem {
        let priority = self.priority(smallest);
        QueueItem {
            id,
            key: self.key,
            bucket: self.bucket,
            priority,
            command: self.command,
            context: self.context,
            estimated_duration: self.estimated_duration,
            refresh: self.refresh,
            requester: self.requester,
        }
    }

    /// Joins a later wish for the same key into this one, which waits for its item to be free.
    pub fn absorb(&mut self, later: Self) {
        if later.bucket > self.bucket {
            return;
        }
        let offset = if later.bucket < self.bucket {
            later.offset
        } else {
            later.offset.min(self.offset)
        };
        *self = Self { offset, ..later };
    }
}

impl QueueItem {
    /// The place in the queue: the first is served first.
    pub fn order(&self) -> (Bucket, i64, QueueId) {
        (self.bucket, self.priority, self.id)
    }

    /// The update rule: a later bucket changes nothing; the same or an earlier one brings its values. An earlier
    /// bucket brings its priority, the same keeps the smaller one.
    pub fn merge(&mut self, wish: EnqueueRequest, smallest: Option<i64>) -> Merge {
        if wish.bucket > self.bucket {
            return Merge::Unchanged;
        }
        let priority = wish.priority(smallest);
        let renewed = wish.bucket < self.bucket
            || wish.bucket == Bucket::Manual
            || wish.command != self.command;
        self.priority = if wish.bucket < self.bucket {
            priority
        } else {
            self.priority.min(priority)
        };
        self.bucket = wish.bucket;
        self.context = wish.context;
        self.estimated_duration = wish.estimated_duration;
        self.refresh = wish.refresh;
        self.requester = wish.requester;
        self.command = wish.command;
        if renewed {
            Merge::Renewed
        } else {
            Merge::Updated
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wish(bucket: Bucket, offset: f64) -> EnqueueRequest {
        EnqueueRequest {
            key: QueueKey {
                codebase: CodebaseName::new("cb").unwrap(),
                campaign: CampaignName::new("gen").unwrap(),
                change_set: None,
            },
            bucket,
            offset,
            command: "new".into(),
            context: Some("c".into()),
            estimated_duration: Some(1.0),
            refresh: true,
            requester: None,
        }
    }

    #[test]
    fn a_later_bucket_changes_nothing() {
        let mut item = wish(Bucket::Hook, 3.0).into_item(1, None);
        let before = item.clone();
        assert_eq!(
            item.merge(wish(Bucket::Default, -100.0), None),
            Merge::Unchanged
        );
        assert_eq!(item, before);
    }

    #[test]
    fn an_earlier_bucket_brings_its_priority_and_the_same_keeps_the_smaller() {
        let mut item = wish(Bucket::Hook, 3.0).into_item(1, None);
        item.merge(wish(Bucket::Hook, 50.0), Some(3));
        assert_eq!(item.priority, 3);
        item.merge(wish(Bucket::Manual, 50.0), Some(3));
        assert_eq!((item.bucket, item.priority), (Bucket::Manual, 53));
    }

    #[test]
    fn offsets_drop_fractions_and_saturate() {
        assert_eq!(wish(Bucket::Hook, 333.9).priority(Some(-3)), 330);
        assert_eq!(wish(Bucket::Hook, -1.5).priority(None), -1);
        assert_eq!(wish(Bucket::Hook, f64::MAX).priority(Some(5)), i64::MAX);
        assert_eq!(wish(Bucket::Hook, f64::NAN).priority(Some(5)), 5);
    }

    fn bucket() -> impl Strategy<Value = Bucket> {
        (0..Bucket::ALL.len()).prop_map(|i| Bucket::ALL[i])
    }

    proptest! {
        #[test]
        fn merging_never_moves_an_item_back(a in bucket(), b in bucket(), x in -1e6..1e6, y in -1e6..1e6, smallest in -1000_i64..1000) {
            let mut item = wish(a, x).into_item(7, Some(smallest));
            let before = item.order();
            item.merge(wish(b, y), Some(smallest));
            prop_assert!(item.bucket < before.0 || (item.bucket == before.0 && item.order() <= before));
        }

        #[test]
        fn absorbing_is_merging_later(a in bucket(), b in bucket(), x in -1e6..1e6, y in -1e6..1e6) {
            let mut joined = wish(a, x);
            joined.absorb(wish(b, y));
            let mut one_by_one = wish(a, x).into_item(1, Some(5));
            one_by_one.merge(wish(b, y), Some(5));
            prop_assert_eq!(joined.into_item(1, Some(5)), one_by_one);
        }

        #[test]
        fn buckets_are_served_in_the_order_of_their_list(a in bucket(), b in bucket()) {
            let place = |x: Bucket| Bucket::ALL.iter().position(|y| *y == x).unwrap();
            prop_assert_eq!(a.cmp(&b), place(a).cmp(&place(b)));
            prop_assert_eq!(a.as_str().parse::<Bucket>().unwrap(), a);
        }
    }
}
