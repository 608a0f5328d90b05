//! Pauses, limits, parked items, and why an item is where it is. Durations are seconds, times ISO 8601 in UTC without a zone.

use crate::{
    domain::{
        Invalid,
        name::{CampaignName, CodebaseName},
        pause::{ConcurrencyLimit, Pause, Scope},
        queue::QueueId,
        schedule::Score,
        time::{self, Time, iso},
    },
    ports::parking::QueueEntry,
    services::{explain::Explanation, parking::Which, pauses::Usage},
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};
use utoipa::ToSchema;

/// Something to pause.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub struct PauseRequest {
    /// One of all, campaign, host, codebase, bucket, worker.
    pub(crate) kind: String,
    /// Which one; not for all.
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) reason: String,
    /// When it ends by itself.
    pub(crate) until: Option<String>,
}

impl PauseRequest {
    /// Its parts, read.
    pub fn parts(self) -> Result<(Scope, String, Option<Time>), Invalid> {
        let until = self
            .until
            .map(|until| time::parse("until", &until))
            .transpose()?;
        Ok((
            Scope::parse(&self.kind, self.name.as_deref())?,
            self.reason,
            until,
        ))
    }
}

/// Something that is paused.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PauseResponse {
    pub(crate) kind: Cow<'static, str>,
    /// None for all.
    pub(crate) name: Option<String>,
    pub(crate) reason: String,
    pub(crate) since: String,
    pub(crate) until: Option<String>,
}

impl From<Pause> for PauseResponse {
    fn from(pause: Pause) -> Self {
        let name = Some(pause.scope.name().to_owned()).filter(|name| !name.is_empty());
        Self {
            kind: pause.scope.kind().into(),
            name,
            reason: pause.reason,
            since: iso(pause.since),
            until: pause.until.map(iso),
        }
    }
}

/// All pauses.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct PausesResponse {
    #[expect(missing_docs)]
    pub pauses: Vec<PauseResponse>,
}

/// A limit on runs at the same time.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitRequest {
    /// campaign or host.
    pub(crate) kind: String,
    pub(crate) name: String,
    /// Runs at the same time, at the most; 0: none.
    pub(crate) most: u32,
}

impl LimitRequest {
    /// The limit, read.
    pub fn limit(&self) -> Result<ConcurrencyLimit, Invalid> {
        Ok(ConcurrencyLimit {
            scope: Scope::parse(&self.kind, Some(&self.name))?,
            most: self.most,
        })
    }
}

impl From<ConcurrencyLimit> for LimitRequest {
    fn from(limit: ConcurrencyLimit) -> Self {
        Self {
            kind: limit.scope.kind().to_owned(),
            name: limit.scope.name().to_owned(),
            most: limit.most,
        }
    }
}

/// A limit, and what of it is used.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitResponse {
    #[serde(flatten)]
    pub(crate) limit: LimitRequest,
    pub(crate) running: usize,
}

impl From<Usage> for LimitResponse {
    fn from(usage: Usage) -> Self {
        Self {
            limit: usage.limit.into(),
            running: usage.running,
        }
    }
}

/// All limits.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct LimitsResponse {
    #[expect(missing_docs)]
    pub limits: Vec<LimitResponse>,
}

/// An item that waits for somebody to release it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ParkedResponse {
    pub(crate) queue_id: QueueId,
    pub(crate) codebase: String,
    pub(crate) campaign: String,
    pub(crate) change_set: Option<String>,
    pub(crate) bucket: String,
    pub(crate) reason: String,
    pub(crate) since: Option<String>,
    /// Failed runs in a row, by the rule of the settings that they fell under.
    pub(crate) tries: BTreeMap<String, u32>,
}

impl From<QueueEntry> for ParkedResponse {
    fn from(QueueEntry { item, state }: QueueEntry) -> Self {
        let (reason, since) = state
            .parked
            .map(|parked| (parked.reason, iso(parked.since)))
            .unzip();
        Self {
            queue_id: item.id,
            codebase: item.key.codebase.to_string(),
            campaign: item.key.campaign.to_string(),
            change_set: item.key.change_set,
            bucket: item.bucket.to_string(),
            reason: reason.unwrap_or_default(),
            since,
            tries: state.tries,
        }
    }
}

/// Some parked items.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ParkedPageResponse {
    #[expect(missing_docs)]
    pub parked: Vec<ParkedResponse>,
    /// The cursor of the next page.
    pub next: Option<QueueId>,
}

/// Which items to release.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct UnparkRequest {
    pub(crate) queue_ids: Option<Vec<QueueId>>,
    pub(crate) campaign: Option<String>,
    pub(crate) codebase: Option<String>,
    /// All parked items.
    pub(crate) all: bool,
}

impl UnparkRequest {
    /// The wish, read. Nothing named is a mistake, not a wish for all.
    pub fn which(self) -> Result<Which, Invalid> {
        match self {
            Self {
                queue_ids: Some(ids),
                ..
            } => Ok(Which::Ids(ids)),
            Self {
                campaign: None,
                codebase: None,
                all: false,
                ..
            } => Err(Invalid::new(
                "queue_ids",
                "name items by queue_ids, campaign or codebase, or say all",
            )),
            Self {
                campaign, codebase, ..
            } => Ok(Which::Matching {
                campaign: campaign.map(CampaignName::new).transpose()?,
                codebase: codebase.map(CodebaseName::new).transpose()?,
            }),
        }
    }
}

/// What was released.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct UnparkedResponse {
    #[expect(missing_docs)]
    pub unparked: Vec<QueueId>,
}

/// The parts of a score, and what they make: cost / (`codebase_value` * `probability` * `candidate_value`).
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct ScoreResponse {
    pub(crate) codebase_value: f64,
    pub(crate) probability: f64,
    pub(crate) candidate_value: f64,
    pub(crate) estimated_duration: f64,
    /// What the item would be queued behind the first one by.
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

/// Something that keeps an item from being handed out.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub(crate) struct BlockerResponse {
    /// One of parked, snoozed, held, paused, limit, avoided host, rate-limited host, unknown campaign.
    pub(crate) kind: Cow<'static, str>,
    pub(crate) detail: String,
    /// When it ends by itself.
    pub(crate) until: Option<String>,
}

/// Why an item is where it is.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ExplanationResponse {
    pub(crate) queue_id: QueueId,
    pub(crate) codebase: String,
    pub(crate) campaign: String,
    pub(crate) change_set: Option<String>,
    pub(crate) bucket: String,
    pub(crate) priority: i64,
    pub(crate) requester: Option<String>,
    /// The first is 1.
    pub(crate) position: u64,
    /// Seconds of work before it.
    pub(crate) cumulative_wait_time: f64,
    /// How its candidate would be scored today; null without a candidate.
    pub(crate) score: Option<ScoreResponse>,
    /// A worker that asks gets it when its turn comes.
    pub(crate) can_be_handed_out: bool,
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
            can_be_handed_out: blockers.is_empty(),
            blockers: blockers
                .into_iter()
                .map(|b| BlockerResponse {
                    kind: b.kind.into(),
                    detail: b.detail,
                    until: b.until.map(iso),
                })
                .collect(),
        }
    }
}
