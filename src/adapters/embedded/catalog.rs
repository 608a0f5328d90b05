//! Codebases, candidates and publish policies on the embedded stores.

use super::{
    change_sets, codebases, items, keys, memory_index::MemoryIndex, records::StoredCodebase,
    store::Embedded, txn::Txn,
};
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

/// Returns the location (branch URL and subpath) that only one codebase may have. A named codebase
/// without a subpath may share its branch with others, so it has none.
fn unique_location(codebase: &Codebase) -> Option<(&str, &str)> {
    match (&codebase.branch_url, &codebase.subpath, &codebase.name) {
        (Some(url), Some(subpath), _) => Some((url, subpath)),
        (Some(url), None, None) => Some((url, "")),
        _ => None,
    }
}

/// Returns the codebase that is stored at the same location.
fn at_same_location(txn: &Txn<'_>, codebase: &Codebase) -> Result<Option<StoredCodebase>, Fault> {
    let Some((url, subpath)) = unique_location(codebase) else {
        return Ok(None);
    };
    match txn.get::<u64>(&keys::codebase_at(url, subpath))? {
        Some(sequence) => txn.get(&keys::codebase(sequence)),
        None => Ok(None),
    }
}

/// Returns the stored codebase that an upload replaces.
fn replaced_by(txn: &Txn<'_>, new: &Codebase) -> Result<Option<StoredCodebase>, CatalogError> {
    let at_location = at_same_location(txn, new)?;
    let Some(name) = &new.name else {
        return Ok(at_location.filter(|stored| stored.codebase.name.is_none()));
    };
    let is_other = |stored: &StoredCodebase| stored.codebase.name.as_ref() != Some(name);
    if let Some(other) = at_location.filter(is_other) {
        return Err(CatalogError::DuplicateLocation {
            branch_url: new.branch_url.clone().unwrap_or_default(),
            subpath: new.subpath.clone().unwrap_or_default(),
            holder: other
                .codebase
                .name
                .map_or_else(|| "without a name".to_owned(), String::from),
        });
    }
    Ok(codebases::stored(txn, name)?)
}

/// Stores one codebase; returns its name if it moved to another location.
fn upload_codebase(
    txn: &mut Txn<'_>,
    codebase: Codebase,
) -> Result<Option<CodebaseName>, CatalogError> {
    let earlier = replaced_by(txn, &codebase)?;
    let moved = earlier
        .as_ref()
        .is_some_and(|earlier| codebase.moved_from(&earlier.codebase));
    let sequence = match earlier {
        Some(StoredCodebase {
            sequence,
            codebase: earlier,
        }) => {
            // The index entries of its earlier location and value would otherwise still find it.
            if let Some((url, subpath)) = unique_location(&earlier) {
                txn.delete(keys::codebase_at(url, subpath));
            }
            if let Some(value) = earlier.value {
                txn.delete(keys::codebase_value(value, sequence));
            }
            sequence
        }
        None => txn.add(keys::meta("last_codebase"), 1)?,
    };
    if let Some((url, subpath)) = unique_location(&codebase) {
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

/// Checks that the codebase and the runs that a candidate names are stored.
fn validate_references(txn: &Txn<'_>, scheduled: &ScheduledCandidate) -> Result<(), CatalogError> {
    let codebase = &scheduled.new.candidate.key.codebase;
    if !codebases::exists(txn, codebase)? {
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
    index: &mut MemoryIndex,
    scheduled: ScheduledCandidate,
    now: Time,
) -> Result<Enqueued, CatalogError> {
    validate_references(txn, &scheduled)?;
    let ScheduledCandidate { new, enqueue } = scheduled;
    let key = &new.candidate.key;
    if let Some(change_set) = &key.change_set {
        change_sets::ensure(txn, change_set, &key.campaign)?;
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
    Ok(items::enqueue(txn, index, enqueue, now)?)
}

fn candidates_of(txn: &Txn<'_>, codebase: &CodebaseName) -> Result<Vec<Candidate>, Fault> {
    let mut ids: Vec<CandidateId> =
        txn.list(&keys::candidates_of_codebase(codebase), usize::MAX)?;
    ids.sort_unstable();
    let candidates = ids.into_iter().map(|id| txn.get(&keys::candidate(id)));
    Ok(candidates
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

fn delete_candidate(
    txn: &mut Txn<'_>,
    index: &mut MemoryIndex,
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
    let queued = index
        .item_by_key(&candidate.key)
        .map(|stored| stored.item.id);
    // The run of a claimed item goes on, and its item is removed when the run ends.
    if let Some(unclaimed) = queued.filter(|id| !index.is_claimed(*id)) {
        items::remove(txn, index, unclaimed);
    }
    Ok(true)
}

#[async_trait]
impl Catalog for Embedded {
    #[tracing::instrument(
        name = "embedded.catalog.upload_codebases", level = "debug", skip_all,
        fields(codebases = codebases.len())
    )]
    async fn upload_codebases(
        &self,
        codebases: Vec<Codebase>,
    ) -> Result<Vec<CodebaseName>, CatalogError> {
        self.write("store codebases", move |txn, index| {
            index.passed_hosts.forget();
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

    #[tracing::instrument(
        name = "embedded.catalog.codebase", level = "debug", skip_all,
        fields(codebase.name = %name)
    )]
    async fn codebase(&self, name: &CodebaseName) -> Result<Option<Codebase>, CatalogError> {
        let name = name.clone();
        self.read("look up a codebase", move |txn, _| {
            Ok(codebases::get(txn, &name)?)
        })
        .await
    }

    #[tracing::instrument(name = "embedded.catalog.codebases", level = "debug", skip_all)]
    async fn codebases(&self, limit: usize) -> Result<Vec<Codebase>, CatalogError> {
        let (mut named, mut nameless) = (vec![], vec![]);
        self.visit_all(
            "list the codebases",
            keys::codebases(),
            |stored: StoredCodebase| {
                match stored.codebase.name {
                    Some(_) => named.push(stored.codebase),
                    None if nameless.len() < limit => nameless.push(stored.codebase),
                    None => {}
                }
                named.len() < limit
            },
        )
        .await?;
        named.extend(nameless);
        named.truncate(limit);
        Ok(named)
    }

    #[tracing::instrument(name = "embedded.catalog.known", level = "debug", skip_all)]
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
                if codebases::exists(txn, &name)? {
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

    #[tracing::instrument(
        name = "embedded.catalog.upload_candidates", level = "debug", skip_all,
        fields(candidates = candidates.len())
    )]
    async fn upload_candidates(
        &self,
        candidates: Vec<ScheduledCandidate>,
        now: Time,
    ) -> Result<Vec<Enqueued>, CatalogError> {
        let store = move |txn: &mut Txn<'_>, index: &mut MemoryIndex| {
            candidates
                .into_iter()
                .map(|new| upload_candidate(txn, index, new, now))
                .collect()
        };
        let enqueued: Vec<Enqueued> = self
            .write::<_, CatalogError>("store candidates", store)
            .await?;
        self.availability.add(enqueued.len());
        Ok(enqueued)
    }

    #[tracing::instrument(name = "embedded.catalog.candidates", level = "debug", skip_all)]
    async fn candidates(
        &self,
        codebase: Option<CodebaseName>,
        limit: usize,
    ) -> Result<Vec<Candidate>, CatalogError> {
        let action = "list the candidates";
        let Some(codebase) = codebase else {
            let mut candidates = vec![];
            self.visit_all(action, keys::candidates(), |candidate| {
                candidates.push(candidate);
                candidates.len() < limit
            })
            .await?;
            candidates.truncate(limit);
            return Ok(candidates);
        };
        self.read(action, move |txn, _| {
            let mut candidates = candidates_of(txn, &codebase)?;
            candidates.truncate(limit);
            Ok(candidates)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.catalog.delete_candidate", level = "debug", skip_all,
        fields(candidate.id = id)
    )]
    async fn delete_candidate(&self, id: CandidateId) -> Result<bool, CatalogError> {
        self.write("delete a candidate", move |txn, index| {
            Ok(delete_candidate(txn, index, id)?)
        })
        .await
    }

    #[tracing::instrument(
        name = "embedded.catalog.put_publish_policies",
        level = "debug",
        skip_all
    )]
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
