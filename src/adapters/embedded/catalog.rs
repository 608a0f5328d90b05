//! Codebases, candidates and publish policies on the embedded stores.

use super::{Embedded, keys, memory_index::MemoryIndex, queue, records::StoredCodebase, txn::Txn};
use crate::{
    domain::{
        candidate::{Candidate, CandidateId},
        codebase::Codebase,
        name::{CodebaseName, RunId},
        publish::PublishPolicy,
        time::Time,
    },
    ports::{
        Catalog, CatalogError, Fault,
        catalog::{KnownNames, ScheduledCandidate},
        queue_store::Enqueued,
    },
};
use async_trait::async_trait;

fn stored_codebase(txn: &Txn<'_>, name: &CodebaseName) -> Result<Option<StoredCodebase>, Fault> {
    match txn.get::<u64>(&keys::codebase_named(name))? {
        Some(sequence) => txn.get(&keys::codebase(sequence)),
        None => Ok(None),
    }
}

pub(super) fn codebase(txn: &Txn<'_>, name: &CodebaseName) -> Result<Option<Codebase>, Fault> {
    Ok(stored_codebase(txn, name)?.map(|stored| stored.codebase))
}

pub(super) fn is_known(txn: &Txn<'_>, name: &CodebaseName) -> Result<bool, Fault> {
    Ok(txn.get_bytes(&keys::codebase_named(name))?.is_some())
}

/// The place that only one codebase can be; a codebase without a subpath shares its branch with others.
fn place(codebase: &Codebase) -> Option<(&str, &str)> {
    match (&codebase.branch_url, &codebase.subpath, &codebase.name) {
        (Some(url), Some(subpath), _) => Some((url, subpath)),
        (Some(url), None, None) => Some((url, "")),
        _ => None,
    }
}

fn same_place(txn: &Txn<'_>, codebase: &Codebase) -> Result<Option<StoredCodebase>, Fault> {
    let Some((url, subpath)) = place(codebase) else {
        return Ok(None);
    };
    match txn.get::<u64>(&keys::codebase_at(url, subpath))? {
        Some(sequence) => txn.get(&keys::codebase(sequence)),
        None => Ok(None),
    }
}

fn existing(txn: &Txn<'_>, new: &Codebase) -> Result<Option<StoredCodebase>, CatalogError> {
    let there = same_place(txn, new)?;
    let Some(name) = &new.name else {
        return Ok(there.filter(|stored| stored.codebase.name.is_none()));
    };
    if let Some(other) = there.filter(|stored| stored.codebase.name.as_ref() != Some(name)) {
        return Err(CatalogError::DuplicateLocation {
            branch_url: new.branch_url.clone().unwrap_or_default(),
            subpath: new.subpath.clone().unwrap_or_default(),
            holder: other
                .codebase
                .name
                .map_or_else(|| "without a name".to_owned(), String::from),
        });
    }
    Ok(stored_codebase(txn, name)?)
}

/// Stores one codebase; answers its name if it moved.
fn upload_codebase(
    txn: &mut Txn<'_>,
    codebase: Codebase,
) -> Result<Option<CodebaseName>, CatalogError> {
    let earlier = existing(txn, &codebase)?;
    let moved = earlier
        .as_ref()
        .is_some_and(|earlier| codebase.moved_from(&earlier.codebase));
    let sequence = match earlier {
        Some(StoredCodebase {
            sequence,
            codebase: earlier,
        }) => {
            if let Some((url, subpath)) = place(&earlier) {
                txn.delete(keys::codebase_at(url, subpath));
            }
            if let Some(value) = earlier.value {
                txn.delete(keys::codebase_value(value, sequence));
            }
            sequence
        }
        None => txn.add(keys::meta("last_codebase"), 1)?,
    };
    if let Some((url, subpath)) = place(&codebase) {
        txn.put(keys::codebase_at(url, subpath), &sequence)?;
    }
    if let Some(value) = codebase.value {
        txn.put_bytes(keys::codebase_value(value, sequence), vec![]);
    }
    if let Some(name) = &codebase.name {
        txn.put(keys::codebase_named(name), &sequence)?;
    }
    let name = codebase.name.clone();
    txn.put(
        keys::codebase(sequence),
        &StoredCodebase { sequence, codebase },
    )?;
    Ok(name.filter(|_| moved))
}

/// What would make an upload fail half-way.
fn check_candidate(txn: &Txn<'_>, scheduled: &ScheduledCandidate) -> Result<(), CatalogError> {
    let codebase = &scheduled.new.candidate.key.codebase;
    if !is_known(txn, codebase)? {
        return Err(CatalogError::UnknownCodebase(codebase.clone()));
    }
    for run in &scheduled.new.followup_for {
        if txn.get_bytes(&keys::run(run))?.is_none() {
            return Err(CatalogError::UnknownRun(run.clone()));
        }
    }
    Ok(())
}

fn upload_candidate(
    txn: &mut Txn<'_>,
    hot: &mut MemoryIndex,
    scheduled: ScheduledCandidate,
    now: Time,
) -> Result<Enqueued, CatalogError> {
    check_candidate(txn, &scheduled)?;
    let ScheduledCandidate { new, enqueue } = scheduled;
    let key = &new.candidate.key;
    if let Some(change_set) = &key.change_set {
        super::runs::make_change_set(txn, change_set, &key.campaign)?;
    }
    let of_key = keys::candidate_of(key);
    let id = match txn.get::<CandidateId>(&of_key)? {
        Some(id) => id,
        None => txn.add(keys::meta("last_candidate"), 1)?.cast_signed(),
    };
    txn.put(of_key, &id)?;
    for run in &new.followup_for {
        txn.put(keys::origin(id, run), run)?;
    }
    txn.put(
        keys::candidate(id),
        &Candidate {
            id,
            ..new.candidate
        },
    )?;
    Ok(queue::enqueue(txn, hot, enqueue, now)?)
}

fn candidates_of(txn: &Txn<'_>, codebase: &CodebaseName) -> Result<Vec<Candidate>, Fault> {
    let mut ids: Vec<CandidateId> =
        txn.list(&keys::candidates_of_codebase(codebase), usize::MAX)?;
    ids.sort_unstable();
    let found = ids.into_iter().map(|id| txn.get(&keys::candidate(id)));
    Ok(found
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

fn delete_candidate(
    txn: &mut Txn<'_>,
    hot: &mut MemoryIndex,
    id: CandidateId,
) -> Result<bool, Fault> {
    let Some(candidate) = txn.get::<Candidate>(&keys::candidate(id))? else {
        return Ok(false);
    };
    let origins: Vec<RunId> = txn.list(&keys::origins(id), usize::MAX)?;
    for run in &origins {
        txn.delete(keys::origin(id, run));
    }
    txn.delete(keys::candidate(id));
    txn.delete(keys::candidate_of(&candidate.key));
    let queued = hot.item_of(&candidate.key).map(|stored| stored.item.id);
    if let Some(free) = queued.filter(|id| !hot.is_held(*id)) {
        queue::take_off(txn, hot, free);
    }
    Ok(true)
}

#[async_trait]
impl Catalog for Embedded {
    async fn upload_codebases(
        &self,
        codebases: Vec<Codebase>,
    ) -> Result<Vec<CodebaseName>, CatalogError> {
        self.write("store codebases", move |txn, _| {
            let stored = codebases
                .into_iter()
                .map(|codebase| upload_codebase(txn, codebase));
            Ok(stored
                .collect::<Result<Vec<_>, _>>()?
                .into_iter()
                .flatten()
                .collect())
        })
        .await
    }

    async fn codebase(&self, name: &CodebaseName) -> Result<Option<Codebase>, CatalogError> {
        let name = name.clone();
        self.read("look up a codebase", move |txn, _| {
            Ok(codebase(txn, &name)?)
        })
        .await
    }

    async fn codebases(&self) -> Result<Vec<Codebase>, CatalogError> {
        let stored: Vec<StoredCodebase> = self
            .all::<_, CatalogError>("list the codebases", keys::codebases())
            .await?;
        let mut codebases: Vec<Codebase> =
            stored.into_iter().map(|stored| stored.codebase).collect();
        codebases.sort_by_key(|codebase| codebase.name.is_none());
        Ok(codebases)
    }

    async fn known(
        &self,
        codebases: &[String],
        publish_policies: &[String],
        runs: &[RunId],
    ) -> Result<KnownNames, CatalogError> {
        let (codebases, policies, runs) =
            (codebases.to_vec(), publish_policies.to_vec(), runs.to_vec());
        self.read("look up names", move |txn, _| {
            let mut known = KnownNames::default();
            for name in codebases
                .into_iter()
                .filter_map(|name| CodebaseName::new(name).ok())
            {
                if is_known(txn, &name)? {
                    known.codebases.insert(name.into());
                }
            }
            for name in policies {
                if txn.get_bytes(&keys::publish_policy(&name))?.is_some() {
                    known.publish_policies.insert(name);
                }
            }
            for run in runs {
                if txn.get_bytes(&keys::run(&run))?.is_some() {
                    known.runs.insert(run);
                }
            }
            Ok(known)
        })
        .await
    }

    async fn upload_candidates(
        &self,
        candidates: Vec<ScheduledCandidate>,
        now: Time,
    ) -> Result<Vec<Enqueued>, CatalogError> {
        let store = move |txn: &mut Txn<'_>, hot: &mut MemoryIndex| {
            candidates
                .into_iter()
                .map(|new| upload_candidate(txn, hot, new, now))
                .collect()
        };
        let queued: Vec<Enqueued> = self
            .write::<_, CatalogError>("store candidates", store)
            .await?;
        self.availability.add(queued.len());
        Ok(queued)
    }

    async fn candidates(
        &self,
        codebase: Option<CodebaseName>,
    ) -> Result<Vec<Candidate>, CatalogError> {
        let Some(codebase) = codebase else {
            return self.all("list the candidates", keys::candidates()).await;
        };
        self.read("list a codebase's candidates", move |txn, _| {
            Ok(candidates_of(txn, &codebase)?)
        })
        .await
    }

    async fn delete_candidate(&self, id: CandidateId) -> Result<bool, CatalogError> {
        self.write("delete a candidate", move |txn, hot| {
            Ok(delete_candidate(txn, hot, id)?)
        })
        .await
    }

    async fn put_publish_policies(&self, policies: Vec<PublishPolicy>) -> Result<(), CatalogError> {
        self.write("store publish policies", move |txn, _| {
            for policy in policies {
                txn.put(keys::publish_policy(&policy.name), &policy)?;
            }
            Ok(())
        })
        .await
    }
}
