//! The queue: its order, and how a request for an item that is queued already is merged into it.

use super::{
    Invalid,
    name::{CampaignName, CodebaseName},
    time::Time,
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
pub enum Bucket {
    /// Updates of open merge proposals.
    UpdateExistingMp,
    /// Runs that somebody asked for.
    Manual,
    /// Control runs, without the change.
    Control,
    /// Runs that a hook of a forge asked for.
    Hook,
    /// Repeats of failed runs, by bulk requests.
    Reschedule,
    /// Updates of merge proposals that were just opened.
    UpdateNewMp,
    /// Runs that other runs wait for as dependencies.
    MissingDeps,
    /// Everything else.
    #[default]
    Default,
}

impl Bucket {
    /// All buckets, in the order in which they are served.
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

    /// Returns its name.
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

/// The key of a queue item; the queue holds at most one item of each key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QueueKey {
    /// The codebase.
    pub codebase: CodebaseName,
    /// The campaign.
    pub campaign: CampaignName,
    /// The change set, if it belongs to one.
    pub change_set: Option<String>,
}

/// A pending run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QueueItem {
    /// The id.
    pub id: QueueId,
    /// What is to be run.
    #[serde(flatten)]
    pub key: QueueKey,
    /// The class of the item.
    pub bucket: Bucket,
    /// The priority within the bucket; smaller is sooner.
    pub priority: i64,
    /// The command to run.
    pub command: String,
    /// The context of the candidate or of its last run.
    pub context: Option<String>,
    /// The estimated duration, in seconds.
    pub estimated_duration: Option<f64>,
    /// Whether the run starts afresh rather than resumes an earlier one.
    pub refresh: bool,
    /// Who asked for it.
    pub requester: Option<String>,
}

/// A request to have something run.
///
/// A request for an item that is queued already is merged into it, see [`QueueItem::merge`]:
///
/// ```
/// use janitor_runner::domain::{
///     name::{CampaignName, CodebaseName},
///     queue::{Bucket, EnqueueRequest, Merge, QueueKey},
/// };
///
/// let request = EnqueueRequest {
///     key: QueueKey {
///         codebase: CodebaseName::new("hello")?,
///         campaign: CampaignName::new("lintian-fixes")?,
///         change_set: None,
///     },
///     bucket: Bucket::Default,
///     offset: 35_000.0,
///     command: "lintian-brush".into(),
///     context: None,
///     estimated_duration: Some(15.0),
///     refresh: false,
///     requester: None,
///     interval: None,
/// };
/// let mut item = request.clone().into_item(1, Some(100));
/// assert_eq!(item.priority, 35_100);
///
/// let manual = EnqueueRequest { bucket: Bucket::Manual, offset: -1.0, ..request.clone() };
/// assert_eq!(item.merge(manual, Some(100)), Merge::Renewed);
/// assert_eq!(item.order(), (Bucket::Manual, 99, 1));
/// // A later bucket changes nothing.
/// assert_eq!(item.merge(request, Some(100)), Merge::Unchanged);
/// # Ok::<(), janitor_runner::domain::Invalid>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnqueueRequest {
    /// What is to be run.
    #[serde(flatten)]
    pub key: QueueKey,
    /// The class of the item.
    pub bucket: Bucket,
    /// The distance of the item's priority from the smallest one in the queue.
    pub offset: f64,
    /// The command to run.
    pub command: String,
    /// The context of the candidate or of its last run.
    pub context: Option<String>,
    /// The estimated duration, in seconds.
    pub estimated_duration: Option<f64>,
    /// Whether the run starts afresh rather than resumes an earlier one.
    pub refresh: bool,
    /// Who asks for it.
    pub requester: Option<String>,
    /// Until when the item is not assigned, if it is a new one that nobody asked for.
    #[serde(default)]
    pub interval: Option<Interval>,
}

/// Until when an item is not assigned, because the last runs of its pair ended alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// The end of the interval.
    #[serde(with = "super::time::as_iso")]
    pub until: Time,
    /// The number of runs in a row that ended alike.
    pub repeats: u32,
}

/// The outcome of merging an [`EnqueueRequest`] into the item of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// The item stays as it is.
    Unchanged,
    /// The item was updated.
    Updated,
    /// The item was updated, and it is no longer parked or snoozed because of its earlier runs: its
    /// command is another one, or somebody asked for it, or it moved to an earlier bucket.
    Renewed,
}

impl EnqueueRequest {
    /// Returns the priority of a new item: the smallest in the queue (0 when it is empty) plus the
    /// offset, without its fraction.
    pub fn priority(&self, smallest: Option<i64>) -> i64 {
        // A float cast saturates, so no offset can wrap around.
        #[expect(clippy::cast_possible_truncation)]
        let offset = self.offset.trunc() as i64;
        smallest.unwrap_or(0).saturating_add(offset)
    }

    /// Returns the item that the request creates in a queue without an item of its key.
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

    /// Merges a later request for the same key into this one, which waits for its claimed item to
    /// be free. The result is the same as that of merging both into the item, one after the other.
    pub fn coalesce(&mut self, later: Self) {
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
    /// Returns the position in the queue order; the smallest is served first.
    pub fn order(&self) -> (Bucket, i64, QueueId) {
        (self.bucket, self.priority, self.id)
    }

    /// Merges a request into the item of its key. A later bucket changes nothing; the same or an
    /// earlier one replaces the values. An earlier bucket also replaces the priority, the same
    /// keeps the smaller of both.
    pub fn merge(&mut self, request: EnqueueRequest, smallest: Option<i64>) -> Merge {
        if request.bucket > self.bucket {
            return Merge::Unchanged;
        }
        let priority = request.priority(smallest);
        let renewed = request.bucket < self.bucket
            || request.bucket == Bucket::Manual
            || request.command != self.command;
        self.priority = if request.bucket < self.bucket {
            priority
        } else {
            self.priority.min(priority)
        };
        self.bucket = request.bucket;
        self.context = request.context;
        self.estimated_duration = request.estimated_duration;
        self.refresh = request.refresh;
        self.requester = request.requester;
        self.command = request.command;
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

    fn request(bucket: Bucket, offset: f64) -> EnqueueRequest {
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
            interval: None,
        }
    }

    #[test]
    fn later_bucket_changes_nothing() {
        let mut item = request(Bucket::Hook, 3.0).into_item(1, None);
        let before = item.clone();
        assert_eq!(
            item.merge(request(Bucket::Default, -100.0), None),
            Merge::Unchanged
        );
        assert_eq!(item, before);
    }

    #[test]
    fn earlier_bucket_replaces_priority_and_same_bucket_keeps_the_smaller() {
        let mut item = request(Bucket::Hook, 3.0).into_item(1, None);
        item.merge(request(Bucket::Hook, 50.0), Some(3));
        assert_eq!(item.priority, 3);
        item.merge(request(Bucket::Manual, 50.0), Some(3));
        assert_eq!(item.bucket, Bucket::Manual);
        assert_eq!(item.priority, 53);
    }

    #[test]
    fn offsets_drop_fractions_and_saturate() {
        assert_eq!(request(Bucket::Hook, 333.9).priority(Some(-3)), 330);
        assert_eq!(request(Bucket::Hook, -1.5).priority(None), -1);
        assert_eq!(request(Bucket::Hook, f64::MAX).priority(Some(5)), i64::MAX);
        assert_eq!(request(Bucket::Hook, f64::NAN).priority(Some(5)), 5);
    }

    fn bucket() -> impl Strategy<Value = Bucket> {
        (0..Bucket::ALL.len()).prop_map(|i| Bucket::ALL[i])
    }

    proptest! {
        #[test]
        fn merging_never_moves_an_item_back(
            a in bucket(),
            b in bucket(),
            x in -1e6..1e6,
            y in -1e6..1e6,
            smallest in -1000_i64..1000,
        ) {
            let mut item = request(a, x).into_item(7, Some(smallest));
            let before = item.order();
            item.merge(request(b, y), Some(smallest));
            prop_assert!(item.bucket < before.0 || item.order() <= before);
        }

        #[test]
        fn coalescing_equals_merging_one_by_one(
            a in bucket(),
            b in bucket(),
            x in -1e6..1e6,
            y in -1e6..1e6,
        ) {
            let mut joined = request(a, x);
            joined.coalesce(request(b, y));
            let mut one_by_one = request(a, x).into_item(1, Some(5));
            one_by_one.merge(request(b, y), Some(5));
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
