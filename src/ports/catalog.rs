//! Codebases, candidates and publish policies.

use super::{Fault, queue_store::Enqueued};
use crate::domain::{
    candidate::{Candidate, CandidateId, NewCandidate},
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
    /// Two codebases cannot be the same place.
    #[error("{branch_url} with subpath {subpath} is already the codebase {holder}")]
    #[expect(missing_docs)]
    DuplicateLocation {
        branch_url: String,
        subpath: String,
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

/// A candidate with the queue item that its upload brings.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct ScheduledCandidate {
    pub new: NewCandidate,
    pub enqueue: EnqueueRequest,
}

/// Which of some names are there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct KnownNames {
    pub codebases: BTreeSet<String>,
    pub publish_policies: BTreeSet<String>,
    pub runs: BTreeSet<RunId>,
}

impl crate::domain::candidate::Known for KnownNames {
    fn codebase(&self, name: &CodebaseName) -> bool {
        self.codebases.contains(name.as_str())
    }

    fn publish_policy(&self, name: &str) -> bool {
        self.publish_policies.contains(name)
    }

    fn run(&self, id: &RunId) -> bool {
        self.runs.contains(id)
    }
}

/// What can be run on what.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait Catalog: Send + Sync {
    /// Stores all codebases in one step, each whole: what is there by that name (or, without a name, at that branch URL
    /// and subpath) is replaced. Answers the names of those whose branch or subpath changed.
    ///
    /// # Errors
    /// `DuplicateLocation` when a codebase of another name has the same branch URL and subpath; nothing is stored then.
    async fn upload_codebases(
        &self,
        codebases: Vec<Codebase>,
    ) -> Result<Vec<CodebaseName>, CatalogError>;

    /// The codebase of that name.
    async fn codebase(&self, name: &CodebaseName) -> Result<Option<Codebase>, CatalogError>;

    /// All codebases, in the order of their first upload; those without a name come last.
    async fn codebases(&self) -> Result<Vec<Codebase>, CatalogError>;

    /// Which of these names and runs are known.
    async fn known(
        &self,
        codebases: &[String],
        publish_policies: &[String],
        runs: &[RunId],
    ) -> Result<KnownNames, CatalogError>;

    /// Stores candidates, by (codebase, campaign, change set), and queues their items, all in one step. Change sets that
    /// do not exist are made. Answers in the order given.
    ///
    /// # Errors
    /// `UnknownRun` and `UnknownCodebase`; nothing is stored then.
    async fn upload_candidates(
        &self,
        candidates: Vec<ScheduledCandidate>,
        now: Time,
    ) -> Result<Vec<Enqueued>, CatalogError>;

    /// All candidates by id; those of one codebase if given.
    async fn candidates(
        &self,
        codebase: Option<CodebaseName>,
    ) -> Result<Vec<Candidate>, CatalogError>;

    /// Takes a candidate away, with what follows up on it and its queue item unless somebody holds that. False when
    /// there is none.
    async fn delete_candidate(&self, id: CandidateId) -> Result<bool, CatalogError>;

    /// Stores publish policies by name; others stay.
    async fn put_publish_policies(&self, policies: Vec<PublishPolicy>) -> Result<(), CatalogError>;
}
