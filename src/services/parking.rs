//! Items that wait for somebody to release them.

use super::ServiceError;
use crate::{
    domain::{
        name::{CampaignName, CodebaseName},
        queue::QueueId,
    },
    ports::{Parking, parking::QueueEntry},
};
use std::sync::Arc;

/// Looked at in one go.
const PAGE: usize = 1000;

/// Which parked items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// These.
    Ids(Vec<QueueId>),
    /// Those of a campaign, a codebase, or all.
    #[expect(missing_docs)]
    Matching {
        campaign: Option<CampaignName>,
        codebase: Option<CodebaseName>,
    },
}

/// Lists and releases them.
pub struct ParkedItems {
    parking: Arc<dyn Parking>,
}

impl ParkedItems {
    /// Of this store.
    pub fn new(parking: Arc<dyn Parking>) -> Self {
        Self { parking }
    }

    /// A page of them, and where the next begins.
    pub async fn list(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<(Vec<QueueEntry>, Option<QueueId>), ServiceError> {
        let mut page = self.parking.parked(after, limit + 1).await?;
        let more = page.len() > limit;
        page.truncate(limit);
        let next = page.last().filter(|_| more).map(|entry| entry.item.id);
        Ok((page, next))
    }

    /// Releases items; answers those that were parked or snoozed.
    pub async fn release(&self, which: Which) -> Result<Vec<QueueId>, ServiceError> {
        let (campaign, codebase) = match which {
            Which::Ids(ids) => return Ok(self.parking.unpark(&ids).await?),
            Which::Matching { campaign, codebase } => (campaign, codebase),
        };
        let wanted = |entry: &QueueEntry| {
            let key = &entry.item.key;
            campaign
                .as_ref()
                .is_none_or(|campaign| *campaign == key.campaign)
                && codebase
                    .as_ref()
                    .is_none_or(|codebase| *codebase == key.codebase)
        };
        let (mut released, mut after) = (vec![], None);
        loop {
            let page = self.parking.parked(after, PAGE).await?;
            after = page.last().map(|entry| entry.item.id);
            if after.is_none() {
                return Ok(released);
            }
            let ids: Vec<QueueId> = page
                .iter()
                .filter(|entry| wanted(entry))
                .map(|entry| entry.item.id)
                .collect();
            released.extend(self.parking.unpark(&ids).await?);
        }
    }
}
