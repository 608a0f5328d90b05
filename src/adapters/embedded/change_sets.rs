//! Change sets, which candidates and runs name.

use super::{keys, records::ChangeSet, txn::Txn};
use crate::{domain::name::CampaignName, ports::Fault};

/// Stores a change set unless it is stored already.
///
/// A run without one has a change set of its own, which follows from the run and is not stored.
pub(super) fn ensure(txn: &mut Txn<'_>, id: &str, campaign: &CampaignName) -> Result<(), Fault> {
    let key = keys::change_set(id);
    if txn.get_bytes(&key)?.is_none() {
        let change_set = ChangeSet {
            campaign: campaign.clone(),
            state: "created".into(),
        };
        txn.put(key, &change_set)?;
    }
    Ok(())
}
