//! Why a queue item is where it is, and why it is not assigned.
//!
//! Times are ISO 8601 in UTC without a zone. Durations are in seconds.

use crate::{
    domain::{queue::QueueId, schedule::Score, time::iso},
    services::explain::Explanation,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use utoipa::ToSchema;

/// The factors of a score: cost / (`codebase_value` * `probability` * `candidate_value`).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ScoreResponse {
    /// The value of the codebase.
    pub(crate) codebase_value: f64,
    /// The estimated probability of success.
    pub(crate) probability: f64,
    /// The value of the candidate.
    pub(crate) candidate_value: f64,
    /// The estimated duration of the run, in seconds.
    pub(crate) estimated_duration: f64,
    /// The distance behind the first item at which the item would be queued.
    pub(crate) offset: f64,
}

impl From<Score> for ScoreResponse {
    fn from(score: Score) -> Self {
        let Score {
            codebase_value,
            probability,
            candidate_value,
            estimated_duration,
            offset,
        } = score;
        Self {
            codebase_value,
            probability,
            candidate_value,
            estimated_duration,
            offset,
        }
    }
}

/// A reason for which an item is not assigned.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct BlockerResponse {
    /// One of parked, snoozed, held, paused, limit, avoided host, rate-limited host, unknown
    /// campaign.
    pub(crate) kind: Cow<'static, str>,
    /// The reason in words.
    pub(crate) detail: String,
    /// The time at which it ends by itself; null when it does not.
    pub(crate) until: Option<String>,
}

/// The position of a queue item, and the reasons for which it is not assigned.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ExplanationResponse {
    /// The id of the queue item.
    pub(crate) queue_id: QueueId,
    /// The name of the codebase.
    pub(crate) codebase: String,
    /// The name of the campaign.
    pub(crate) campaign: String,
    /// The change set that it is of; null when a run makes one of its own.
    pub(crate) change_set: Option<String>,
    /// The bucket of the queue that it is in.
    pub(crate) bucket: String,
    /// The priority within the bucket; lower ones come first.
    pub(crate) priority: i64,
    /// Who queued it.
    pub(crate) requester: Option<String>,
    /// The position in the queue; that of the first item is 1.
    pub(crate) position: u64,
    /// The expected seconds of work in all items before it.
    pub(crate) cumulative_wait_time: f64,
    /// The score that its candidate would have today; null without a candidate.
    pub(crate) score: Option<ScoreResponse>,
    /// Whether a worker gets it once it is the first.
    #[serde(rename = "can_be_handed_out")]
    pub(crate) can_be_assigned: bool,
    /// The reasons for which it is not assigned.
    pub(crate) blockers: Vec<BlockerResponse>,
}

impl From<Explanation> for ExplanationResponse {
    fn from(
        Explanation {
            item,
            position,
            score,
            blockers,
        }: Explanation,
    ) -> Self {
        Self {
            queue_id: item.id,
            codebase: item.key.codebase.to_string(),
            campaign: item.key.campaign.to_string(),
            change_set: item.key.change_set,
            bucket: item.bucket.to_string(),
            priority: item.priority,
            requester: item.requester,
            position: position.position,
            cumulative_wait_time: position.wait_time,
            score: score.map(Into::into),
            can_be_assigned: blockers.is_empty(),
            blockers: blockers
                .into_iter()
                .map(|blocker| BlockerResponse {
                    kind: blocker.kind.into(),
                    detail: blocker.detail,
                    until: blocker.until.map(iso),
                })
                .collect(),
        }
    }
}
