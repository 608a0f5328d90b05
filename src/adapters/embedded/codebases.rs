//! Look-ups of codebases by name, for every port that needs one.

use super::{keys, records::StoredCodebase, txn::Txn};
use crate::{
    domain::{codebase::Codebase, name::CodebaseName, vcs::VcsType},
    ports::Fault,
};

/// Returns the record of a codebase.
pub(super) fn stored(txn: &Txn<'_>, name: &CodebaseName) -> Result<Option<StoredCodebase>, Fault> {
    match txn.get::<u64>(&keys::codebase_named(name))? {
        Some(sequence) => txn.get(&keys::codebase(sequence)),
        None => Ok(None),
    }
}

/// Returns a codebase.
pub(super) fn get(txn: &Txn<'_>, name: &CodebaseName) -> Result<Option<Codebase>, Fault> {
    Ok(stored(txn, name)?.map(|stored| stored.codebase))
}

/// Stores the version control system that a probe found, if none is stored of the codebase.
pub(super) fn learn_vcs_type(
    txn: &mut Txn<'_>,
    name: &CodebaseName,
    vcs_type: Option<VcsType>,
) -> Result<(), Fault> {
    let Some(mut known) = stored(txn, name)? else {
        return Ok(());
    };
    if vcs_type.is_some()
        && known.codebase.vcs_type.is_none()
        && known.codebase.branch_url.is_some()
    {
        known.codebase.vcs_type = vcs_type;
        txn.put(keys::codebase(known.sequence), &known)?;
    }
    Ok(())
}

/// Returns whether a codebase is stored.
pub(super) fn exists(txn: &Txn<'_>, name: &CodebaseName) -> Result<bool, Fault> {
    Ok(txn.get_bytes(&keys::codebase_named(name))?.is_some())
}
