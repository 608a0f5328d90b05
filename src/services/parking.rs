//! Parked items: those whose runs failed too often, and which wait until somebody unparks them.

use super::ServiceError;
use crate::{
    domain::{
        name::{CampaignName, CodebaseName},
        queue::QueueId,
    },
    ports::{Parking, parking::QueueEntry},
};
use std::sync::Arc;

/// Parked items that are read from the store in one step.
const BATCH_SIZE: usize = 1000;

/// Selects the items to unpark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnparkSelection {
    /// The items of these ids, parked or snoozed.
    Ids(Vec<QueueId>),
    /// All parked items that match.
    Matching {
        /// Only items of this campaign.
        campaign: Option<CampaignName>,
        /// Only items of this codebase.
        codebase: Option<CodebaseName>,
    },
}

/// Lists and unparks parked items.
pub struct ParkedItems {
    parking: Arc<dyn Parking>,
}

impl ParkedItems {
    /// Creates the use case over this port.
    pub fn new(parking: Arc<dyn Parking>) -> Self {
        Self { parking }
    }

    /// Returns a page of the parked items in the order of their ids, and the cursor of the next
    /// page: none after the last one.
    ///
    /// # Errors
    ///
    /// When the store fails.
    #[tracing::instrument(name = "services.parking.list", skip_all)]
    pub async fn list(
        &self,
        after: Option<QueueId>,
        limit: usize,
    ) -> Result<(Vec<QueueEntry>, Option<QueueId>), ServiceError> {
        // One more than is requested says whether there is a next page.
        let mut page = self.parking.parked(after, limit + 1).await?;
        let more = page.len() > limit;
        page.truncate(limit);
        let next = page.last().filter(|_| more).map(|entry| entry.item.id);
        Ok((page, next))
    }

    /// Unparks items; returns the ids of those that were parked or snoozed.
    ///
    /// # Errors
    ///
    /// When the store fails; batches before that stay unparked.
    #[tracing::instrument(name = "services.parking.unpark", skip_all)]
    pub async fn unpark(&self, selection: UnparkSelection) -> Result<Vec<QueueId>, ServiceError> {
        let (campaign, codebase) = match selection {
            UnparkSelection::Ids(ids) => return Ok(self.parking.unpark(&ids).await?),
            UnparkSelection::Matching { campaign, codebase } => (campaign, codebase),
        };
        let matches = |entry: &QueueEntry| {
            let key = &entry.item.key;
            campaign
                .as_ref()
                .is_none_or(|campaign| *campaign == key.campaign)
                && codebase
                    .as_ref()
                    .is_none_or(|codebase| *codebase == key.codebase)
        };
        let (mut unparked, mut after) = (vec![], None);
        loop {
            let page = self.parking.parked(after, BATCH_SIZE).await?;
            after = page.last().map(|entry| entry.item.id);
            if after.is_none() {
                return Ok(unparked);
            }
            let ids: Vec<QueueId> = page
                .iter()
                .filter(|entry| matches(entry))
                .map(|entry| entry.item.id)
                .collect();
            unparked.extend(self.parking.unpark(&ids).await?);
        }
    }
}
