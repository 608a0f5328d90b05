//! Takes in codebases and candidates.

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

/// A candidate that was stored and queued.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct AcceptedCandidate {
    pub key: QueueKey,
    pub queued: Enqueued,
    pub offset: f64,
    /// Seconds.
    pub estimated_duration: f64,
    pub refresh: bool,
}

/// What became of each entry of an upload.
#[derive(Debug, Clone, Default, PartialEq)]
#[expect(missing_docs)]
pub struct UploadedCandidates {
    pub accepted: Vec<AcceptedCandidate>,
    pub rejected: Vec<Rejection>,
}

/// Takes in codebases and candidates.
pub struct Ingest {
    catalog: Arc<dyn Catalog>,
    schedules: Arc<dyn ScheduleStore>,
    queue: Arc<dyn QueueStore>,
    clock: Arc<dyn Clock>,
    config: Arc<CoordinatorConfig>,
}

impl Ingest {
    /// Stores through these ports.
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

    /// Stores codebases, all or none; the candidates of those that moved are scheduled again.
    pub async fn upload_codebases(&self, uploads: Vec<CodebaseUpload>) -> Result<(), ServiceError> {
        let checked = uploads.into_iter().enumerate().map(|(place, upload)| {
            upload
                .check()
                .map_err(|e| Invalid::new(format!("[{place}].{}", e.field), e.reason))
        });
        let moved = self
            .catalog
            .upload_codebases(checked.collect::<Result<_, _>>()?)
            .await?;
        let moved: BTreeSet<CodebaseName> = moved.into_iter().collect();
        let mut candidates = vec![];
        for codebase in moved {
            candidates.extend(self.catalog.candidates(Some(codebase)).await?);
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

    /// Stores candidates and schedules them. Entries that break a rule are left out, each with its reason.
    pub async fn upload_candidates(
        &self,
        entries: Vec<CandidateEntry>,
    ) -> Result<UploadedCandidates, ServiceError> {
        for (place, entry) in entries.iter().enumerate() {
            entry
                .check_text()
                .map_err(|e| Invalid::new(format!("[{place}].{}", e.field), e.reason))?;
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
        for entry in entries {
            match entry.check(&self.config.campaigns, &known) {
                Ok(candidate) => new.push(candidate),
                Err(rejection) => uploaded.rejected.push(rejection),
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
            let request = new.schedule_request(facts.open_proposal_command.as_deref());
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

    /// All codebases, in the order of their first upload.
    pub async fn codebases(&self) -> Result<Vec<Codebase>, ServiceError> {
        Ok(self.catalog.codebases().await?)
    }

    /// All candidates, by id.
    pub async fn candidates(&self) -> Result<Vec<Candidate>, ServiceError> {
        Ok(self.catalog.candidates(None).await?)
    }

    /// Takes a candidate away.
    pub async fn delete_candidate(&self, id: CandidateId) -> Result<(), ServiceError> {
        match self.catalog.delete_candidate(id).await? {
            true => Ok(()),
            false => Err(ServiceError::not_found("candidate", id)),
        }
    }
}
