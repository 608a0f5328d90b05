//! Look-ups of candidates by key, for every port that needs one.

use super::{keys, txn::Txn};
use crate::{
    domain::{
        candidate::{Candidate, CandidateId},
        queue::QueueKey,
    },
    ports::Fault,
};

/// Returns the candidate of a codebase, a campaign and a change set.
pub(super) fn of_key(txn: &Txn<'_>, key: &QueueKey) -> Result<Option<Candidate>, Fault> {
    match txn.get::<CandidateId>(&keys::candidate_of(key))? {
        Some(id) => txn.get(&keys::candidate(id)),
        None => Ok(None),
    }
}
