//! Ingests codebases and candidates.

use super::{CoordinatorConfig, ServiceError};
use crate::{
    domain::{
        Invalid,
        candidate::{Candidate, CandidateEntry, CandidateId, NewCandidate, Rejection},
        codebase::{Codebase, CodebaseUpload},
        name::{CodebaseName, RunId},
        queue::{Bucket, QueueKey},
        schedule::{ScheduleRequest, regular},
    },
    ports::{
        Catalog, Clock, QueueStore, ScheduleStore,
        catalog::ScheduledCandidate,
        queue_store::{EnqueueBatch, Enqueued},
    },
};
use std::{collections::BTreeSet, sync::Arc};

/// A candidate that was stored and enqueued.
#[derive(Debug, Clone, PartialEq)]
pub struct AcceptedCandidate {
    /// The codebase, the campaign and the change set.
    pub key: QueueKey,
    /// Where its item was enqueued.
    pub queued: Enqueued,
    /// The offset of its item.
    pub offset: f64,
    /// The estimated duration of its run, in seconds.
    pub estimated_duration: f64,
    /// Whether its run starts afresh.
    pub refresh: bool,
}

/// The outcome of an upload of candidates.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct UploadedCandidates {
    /// The candidates that were stored, in the order of their entries.
    pub accepted: Vec<AcceptedCandidate>,
    /// The entries that were rejected, by their places in the list, and why.
    pub rejected: Vec<(usize, Rejection)>,
}

/// Ingests codebases and candidates.
pub struct Ingest {
    catalog: Arc<dyn Catalog>,
    schedules: Arc<dyn ScheduleStore>,
    queue: Arc<dyn QueueStore>,
    clock: Arc<dyn Clock>,
    config: Arc<CoordinatorConfig>,
}

impl Ingest {
    /// Creates the service on these ports.
    pub fn new(
        catalog: Arc<dyn Catalog>,
        schedules: Arc<dyn ScheduleStore>,
        queue: Arc<dyn QueueStore>,
        clock: Arc<dyn Clock>,
        config: Arc<CoordinatorConfig>,
    ) -> Self {
        Self {
            catalog,
            schedules,
            queue,
            clock,
            config,
        }
    }

    /// Stores codebases, all or none, and schedules the candidates of those that moved again.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Invalid`] when a codebase is invalid or its location belongs to another;
    /// [`ServiceError::Fault`] when a store fails.
    #[tracing::instrument(
        name = "services.ingest.upload_codebases",
        skip_all,
        fields(codebases = uploads.len())
    )]
    pub async fn upload_codebases(&self, uploads: Vec<CodebaseUpload>) -> Result<(), ServiceError> {
        let validated = uploads.into_iter().enumerate().map(|(index, upload)| {
            upload
                .validate()
                .map_err(|e| Invalid::new(format!("[{index}].{}", e.field), e.reason))
        });
        let moved = self
            .catalog
            .upload_codebases(validated.collect::<Result<_, _>>()?)
            .await?;
        let moved: BTreeSet<CodebaseName> = moved.into_iter().collect();
        let mut candidates = vec![];
        for codebase in moved {
            candidates.extend(self.catalog.candidates(Some(codebase), usize::MAX).await?);
        }
        self.reschedule(candidates, "codebase moved").await
    }

    async fn reschedule(
        &self,
        candidates: Vec<Candidate>,
        requester: &str,
    ) -> Result<(), ServiceError> {
        if candidates.is_empty() {
            return Ok(());
        }
        let keys: Vec<_> = candidates
            .iter()
            .map(|candidate| candidate.key.clone())
            .collect();
        let (facts, now) = (self.schedules.facts(&keys).await?, self.clock.now());
        let items = candidates.iter().zip(&facts).map(|(candidate, facts)| {
            let request = ScheduleRequest {
                bucket: Bucket::Default,
                refresh: false,
                requester: requester.to_owned(),
                context: None,
            };
            regular(candidate, facts, request, now).0
        });
        self.queue
            .enqueue(EnqueueBatch {
                items: items.collect(),
                settles: vec![],
                now,
            })
            .await?;
        Ok(())
    }

    /// Stores candidates and schedules them. Entries that break a rule are rejected, each with its
    /// reason.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Invalid`] when an entry cannot be stored by any store; nothing is stored
    /// then. [`ServiceError::Fault`] when a store fails.
    #[tracing::instrument(
        name = "services.ingest.upload_candidates",
        skip_all,
        fields(candidates = entries.len())
    )]
    pub async fn upload_candidates(
        &self,
        entries: Vec<CandidateEntry>,
    ) -> Result<UploadedCandidates, ServiceError> {
        for (index, entry) in entries.iter().enumerate() {
            entry
                .validate_storable()
                .map_err(|e| Invalid::new(format!("[{index}].{}", e.field), e.reason))?;
        }
        let codebases: Vec<String> = entries
            .iter()
            .map(|entry| entry.codebase.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let policies: Vec<String> = entries
            .iter()
            .filter_map(|e| e.publish_policy.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let runs: Vec<RunId> = entries
            .iter()
            .flat_map(|entry| entry.followup_for.iter().cloned())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let known = self.catalog.known(&codebases, &policies, &runs).await?;
        let (mut uploaded, mut new) = (UploadedCandidates::default(), vec![]);
        for (index, entry) in entries.into_iter().enumerate() {
            match entry.validate(&self.config.campaigns, &known) {
                Ok(candidate) => new.push(candidate),
                Err(rejection) => uploaded.rejected.push((index, rejection)),
            }
        }
        uploaded.accepted = self.store(new).await?;
        Ok(uploaded)
    }

    async fn store(&self, new: Vec<NewCandidate>) -> Result<Vec<AcceptedCandidate>, ServiceError> {
        if new.is_empty() {
            return Ok(vec![]);
        }
        let keys: Vec<_> = new.iter().map(|new| new.candidate.key.clone()).collect();
        let (facts, now) = (self.schedules.facts(&keys).await?, self.clock.now());
        let scheduled = new.into_iter().zip(&facts).map(|(new, facts)| {
            let request = ScheduleRequest::for_upload(&new, facts.open_proposal_command.as_deref());
            let (enqueue, score) = regular(&new.candidate, facts, request, now);
            (ScheduledCandidate { new, enqueue }, score)
        });
        let (scheduled, scores): (Vec<_>, Vec<_>) = scheduled.unzip();
        let refresh: Vec<bool> = scheduled
            .iter()
            .map(|scheduled| scheduled.enqueue.refresh)
            .collect();
        let queued = self.catalog.upload_candidates(scheduled, now).await?;
        let accepted = keys.into_iter().zip(queued).zip(scores).zip(refresh);
        let accepted = accepted.map(|(((key, queued), score), refresh)| AcceptedCandidate {
            key,
            queued,
            offset: score.offset,
            estimated_duration: score.estimated_duration,
            refresh,
        });
        Ok(accepted.collect())
    }

    /// Returns the codebases, in the order of their first upload, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Fault`] when the store fails.
    #[tracing::instrument(name = "services.ingest.codebases", skip_all)]
    pub async fn codebases(&self, limit: usize) -> Result<Vec<Codebase>, ServiceError> {
        Ok(self.catalog.codebases(limit).await?)
    }

    /// Returns the candidates, by id, at most `limit`.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Fault`] when the store fails.
    #[tracing::instrument(name = "services.ingest.candidates", skip_all)]
    pub async fn candidates(&self, limit: usize) -> Result<Vec<Candidate>, ServiceError> {
        Ok(self.catalog.candidates(None, limit).await?)
    }

    /// Deletes a candidate.
    ///
    /// # Errors
    ///
    /// [`ServiceError::NotFound`] when there is no such candidate; [`ServiceError::Fault`] when the
    /// store fails.
    #[tracing::instrument(
        name = "services.ingest.delete_candidate",
        skip_all,
        fields(candidate.id = id)
    )]
    pub async fn delete_candidate(&self, id: CandidateId) -> Result<(), ServiceError> {
        match self.catalog.delete_candidate(id).await? {
            true => Ok(()),
            false => Err(ServiceError::not_found("candidate", id)),
        }
    }
}
