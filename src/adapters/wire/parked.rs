//! Parked items. Times are ISO 8601 in UTC without a zone.

use crate::{
    domain::{
        Invalid,
        name::{CampaignName, CodebaseName},
        queue::QueueId,
        time::iso,
    },
    ports::parking::QueueEntry,
    services::parking::UnparkSelection,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// A parked queue item: its runs failed too often, and it waits until somebody unparks it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ParkedResponse {
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
    /// Why it is parked.
    pub(crate) reason: String,
    /// The time at which it was parked.
    pub(crate) since: Option<String>,
    /// The number of failed runs in a row, by the retry rule of the settings that matched them.
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
            tries: state.attempts,
        }
    }
}

/// A page of parked items.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct ParkedPageResponse {
    /// The items, by id.
    pub parked: Vec<ParkedResponse>,
    /// The cursor of the next page; null after the last one.
    pub next: Option<QueueId>,
}

/// Selects the items to unpark.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct UnparkRequest {
    /// The ids of the items, parked or snoozed.
    pub(crate) queue_ids: Option<Vec<QueueId>>,
    /// Unpark the parked items of this campaign.
    pub(crate) campaign: Option<String>,
    /// Unpark the parked items of this codebase.
    pub(crate) codebase: Option<String>,
    /// Unpark all parked items.
    pub(crate) all: bool,
}

impl UnparkRequest {
    /// Returns the selection.
    ///
    /// # Errors
    ///
    /// When nothing is named: that is a mistake, and does not mean all items. When a name is not
    /// valid.
    pub fn selection(self) -> Result<UnparkSelection, Invalid> {
        match self {
            Self {
                queue_ids: Some(ids),
                ..
            } => Ok(UnparkSelection::Ids(ids)),
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
            } => Ok(UnparkSelection::Matching {
                campaign: campaign.map(CampaignName::new).transpose()?,
                codebase: codebase.map(CodebaseName::new).transpose()?,
            }),
        }
    }
}

/// The items that were unparked.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct UnparkedResponse {
    /// The ids of those that were parked or snoozed.
    pub unparked: Vec<QueueId>,
}
