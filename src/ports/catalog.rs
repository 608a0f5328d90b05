//! The catalog: codebases, candidates and publish policies.

use super::{Fault, queue_store::Enqueued};
use crate::domain::{
    candidate::{Candidate, CandidateId, NameLookup, NewCandidate},
    codebase::Codebase,
    name::{CodebaseName, RunId},
    publish::PublishPolicy,
    queue::EnqueueRequest,
    time::Time,
};
use async_trait::async_trait;
use std::collections::BTreeSet;

/// Why an operation on the catalog failed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Two codebases cannot have the same location.
    #[error("{branch_url} with subpath {subpath} is already the codebase {holder}")]
    DuplicateLocation {
        /// The branch URL of both.
        branch_url: String,
        /// The folder in the branch.
        subpath: String,
        /// The codebase that has the location already.
        holder: String,
    },
    /// A candidate cannot follow up on a run that is not stored.
    #[error("followup_for: no run {0}")]
    UnknownRun(RunId),
    /// A candidate's codebase is gone.
    #[error("no codebase {0}")]
    UnknownCodebase(CodebaseName),
    /// The store failed.
    #[error(transparent)]
    Fault(#[from] Fault),
}

/// A candidate to store, with the queue item to enqueue for it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduledCandidate {
    /// The candidate.
    pub new: NewCandidate,
    /// The request for its queue item.
    pub enqueue: EnqueueRequest,
}

/// The names, out of those that were looked up, that are stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownNames {
    /// The names of codebases.
    pub codebases: BTreeSet<String>,
    /// The names of publish policies.
    pub publish_policies: BTreeSet<String>,
    /// The ids of runs.
    pub runs: BTreeSet<RunId>,
}

impl NameLookup for KnownNames {
    fn has_codebase(&self, name: &CodebaseName) -> bool {
        self.codebases.contains(name.as_str())
    }

    fn has_publish_policy(&self, name: &str) -> bool {
        self.publish_policies.contains(name)
    }

    fn has_run(&self, id: &RunId) -> bool {
        self.runs.contains(id)
    }
}

/// The catalog of what can be run on what. All methods may fail with [`CatalogError::Fault`].
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Catalog: Send + Sync {
    /// Stores all codebases in one step. Each replaces the stored codebase of its name or, without
    /// a name, the one at its branch URL and subpath. Returns the names of those whose branch or
    /// subpath changed. Repeating it is harmless.
    ///
    /// # Errors
    ///
    /// [`CatalogError::DuplicateLocation`] when a codebase of another name has the same branch URL
    /// and subpath; nothing is stored then.
    async fn upload_codebases(
        &self,
        codebases: Vec<Codebase>,
    ) -> Result<Vec<CodebaseName>, CatalogError>;

    /// Returns the codebase of that name.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Fault`] when the store fails.
    async fn codebase(&self, name: &CodebaseName) -> Result<Option<Codebase>, CatalogError>;

    /// Returns the codebases, in the order of their first upload, at most `limit`; those without a
    /// name come last.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Fault`] when the store fails.
    async fn codebases(&self, limit: usize) -> Result<Vec<Codebase>, CatalogError>;

    /// Returns which of these names and runs are stored.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Fault`] when the store fails.
    async fn known(
        &self,
        codebases: &[String],
        publish_policies: &[String],
        runs: &[RunId],
    ) -> Result<KnownNames, CatalogError>;

    /// Stores candidates and enqueues their items, all in one step. A candidate replaces the stored
    /// one of its codebase, campaign and change set; change sets that do not exist are created.
    /// Returns where the items were enqueued, in the order given.
    ///
    /// # Errors
    ///
    /// [`CatalogError::UnknownRun`] and [`CatalogError::UnknownCodebase`]; nothing is stored then.
    async fn upload_candidates(
        &self,
        candidates: Vec<ScheduledCandidate>,
        now: Time,
    ) -> Result<Vec<Enqueued>, CatalogError>;

    /// Returns the candidates, or those of one codebase, by id, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Fault`] when the store fails.
    async fn candidates(
        &self,
        codebase: Option<CodebaseName>,
        limit: usize,
    ) -> Result<Vec<Candidate>, CatalogError>;

    /// Deletes a candidate with its follow-ups, and removes its queue item unless that is claimed.
    /// Returns false when there is no candidate of that id.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Fault`] when the store fails.
    async fn delete_candidate(&self, id: CandidateId) -> Result<bool, CatalogError>;

    /// Stores publish policies by name; policies of other names stay. Repeating it is harmless.
    ///
    /// # Errors
    ///
    /// [`CatalogError::Fault`] when the store fails.
    async fn put_publish_policies(&self, policies: Vec<PublishPolicy>) -> Result<(), CatalogError>;
}
