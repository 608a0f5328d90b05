//! Hands out work.

use super::{CoordinatorConfig, ServiceError, finish::Finisher, status_publisher::StatusPublisher};
use crate::{
    domain::{
        Invalid,
        active_run::{ActiveRun, Claimant, RunVcs},
        assignment::{Assignment, Parts, Unassignable, assign},
        build::{self, BuildRequest},
        campaign::Campaign,
        codebase::Codebase,
        finish::{NOT_IN_VCS, UNKNOWN_CAMPAIGN, UNSUPPORTED_BUILD_TARGET},
        name::{CampaignName, CodebaseName, RunId},
        resume::Resume,
        time::Time,
    },
    metrics::Metrics,
    ports::{
        ActiveRunStore, Clock, HostBackoffs, Ids, QueueStore, RunStore, Vcs,
        active_runs::{ActiveRunUpdate, ClaimRequest, Claimed},
        host_backoff::HostBackoff,
        queue_store::{ClaimFilter, NextItem},
        vcs::Probe,
    },
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};
use tokio_util::task::TaskTracker;

/// Items that one request looks at: when so many in a row cannot be handed out, the worker asks again.
const MOST_TRIES: usize = 50;
const PROBE_PATIENCE: Duration = Duration::from_secs(10);
const RESUME_PATIENCE: Duration = Duration::from_secs(5);

/// A worker's wish.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct AssignRequest {
    pub claimant: Claimant,
    pub codebase: Option<String>,
    pub campaign: Option<String>,
    /// The worker takes part in leases.
    pub lease: bool,
}

/// What became of an item that was taken.
enum Prepared {
    Ready(Box<Assignment>),
    Unassignable(Unassignable),
    RateLimited(HostBackoff),
}

/// Ports and settings that handing out work needs.
pub struct Assigner {
    /// The queue.
    pub queue: Arc<dyn QueueStore>,
    /// The active runs.
    pub active_runs: Arc<dyn ActiveRunStore>,
    /// The hosts that are backing off.
    pub host_backoffs: Arc<dyn HostBackoffs>,
    /// The finished runs.
    pub runs: Arc<dyn RunStore>,
    /// The branches.
    pub vcs: Arc<dyn Vcs>,
    /// Ends what cannot be handed out.
    pub finisher: Arc<Finisher>,
    /// Tells of each claim.
    pub status_publisher: Arc<StatusPublisher>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Ids of runs.
    pub ids: Arc<dyn Ids>,
    /// The deployment.
    pub config: Arc<CoordinatorConfig>,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// What goes on when the caller has gone.
    pub tasks: TaskTracker,
}

impl AssignRequest {
    fn filter(&self, config: &CoordinatorConfig) -> Result<ClaimFilter, Invalid> {
        Ok(ClaimFilter {
            codebase: self.codebase.clone().map(CodebaseName::new).transpose()?,
            campaign: self.campaign.clone().map(CampaignName::new).transpose()?,
            avoid_hosts: config.avoid_hosts.clone(),
            except: vec![],
        })
    }
}

impl Assigner {
    /// Hands out the next item. A caller that goes away before it has the answer leaves nothing claimed. Boxed, since thousands
    /// may wait with room for one.
    pub async fn assign(
        self: &Arc<Self>,
        request: AssignRequest,
    ) -> Result<Box<Assignment>, ServiceError> {
        let (answer, answered) = oneshot::channel();
        let this = self.clone();
        self.tasks.spawn(async move {
            let outcome = this.take_next(request).await;
            if let Err(Ok(unwanted)) = answer.send(outcome) {
                this.release(&unwanted.run).await;
            }
        });
        let stopped = |_| crate::ports::Fault::unavailable("assign", "the runner is stopping");
        answered.await.map_err(stopped)?
    }

    async fn release(&self, run: &ActiveRun) {
        if let Err(error) = self
            .active_runs
            .release(&run.id, &run.token, self.clock.now())
            .await
        {
            tracing::error!(run.id = %run.id, error = &error as &dyn std::error::Error, "an item stays claimed until it is watched out");
        }
        self.status_publisher.queue_changed();
    }

    async fn take_next(&self, request: AssignRequest) -> Result<Box<Assignment>, ServiceError> {
        let mut filter = request.filter(&self.config)?;
        let mut limited: Option<Time> = None;
        for _ in 0..MOST_TRIES {
            let claim = ClaimRequest {
                filter: filter.clone(),
                claimant: request.claimant.clone(),
                run_id: RunId::new(self.ids.fresh()),
                token: self.ids.fresh(),
                now: self.clock.now(),
                lease: request.lease.then_some(self.config.watch.lease),
            };
            let Some(Claimed { run, codebase }) = self.active_runs.claim(claim).await? else {
                break;
            };
            // It is not taken twice by one request, also not when it is queued again at once.
            filter.except.push(run.item.key.clone());
            match self.prepare_or_release(&run, &codebase).await? {
                Prepared::Ready(assignment) => return Ok(self.assigned(assignment)),
                Prepared::Unassignable(Unassignable { code, description }) => {
                    self.finisher.end(&run, code, description).await?;
                }
                Prepared::RateLimited(limit) => {
                    limited = Some(limited.map_or(limit.until, |until| until.min(limit.until)));
                    self.rate_limited(&run, limit).await?;
                }
            }
        }
        self.metrics.queue_empty();
        Err(limited.map_or(ServiceError::QueueEmpty, ServiceError::RateLimited))
    }

    fn assigned(&self, assignment: Box<Assignment>) -> Box<Assignment> {
        self.metrics
            .assigned(assignment.run.claimant.worker.as_deref());
        self.status_publisher.queue_changed();
        assignment
    }

    async fn rate_limited(&self, run: &ActiveRun, limit: HostBackoff) -> Result<(), ServiceError> {
        self.metrics.host_rate_limited(&limit.host);
        let noted = self.host_backoffs.back_off_host(limit).await;
        self.release(run).await;
        Ok(noted?)
    }

    /// A failure on the way lets the item go.
    async fn prepare_or_release(
        &self,
        run: &ActiveRun,
        codebase: &Codebase,
    ) -> Result<Prepared, ServiceError> {
        let prepared = async {
            let prepared = self.prepare(run.clone(), codebase).await?;
            if let Prepared::Ready(assignment) = &prepared {
                let ActiveRun {
                    vcs, resume_from, ..
                } = assignment.run.clone();
                if vcs != RunVcs::default() || resume_from.is_some() {
                    let update = ActiveRunUpdate::Probed { vcs, resume_from };
                    self.active_runs.update(&run.id, &run.token, update).await?;
                }
            }
            Ok(prepared)
        };
        let prepared = prepared.await;
        if prepared.is_err() {
            self.release(run).await;
        }
        prepared
    }

    /// What would be handed out next; nobody sees a claim.
    pub async fn peek(&self) -> Result<Assignment, ServiceError> {
        let mut filter = AssignRequest::default().filter(&self.config)?;
        let mut limited = None;
        for _ in 0..MOST_TRIES {
            let now = self.clock.now();
            let Some(NextItem { item, codebase }) = self.queue.peek(&filter, now).await? else {
                break;
            };
            filter.except.push(item.key.clone());
            let run = ActiveRun::new(
                RunId::new(self.ids.fresh()),
                String::new(),
                item,
                Claimant::default(),
                now,
            );
            match self.prepare(run, &codebase).await? {
                Prepared::Ready(assignment) => return Ok(*assignment),
                Prepared::Unassignable(_) => {}
                Prepared::RateLimited(limit) => limited = Some(limit.until),
            }
        }
        Err(limited.map_or(ServiceError::QueueEmpty, ServiceError::RateLimited))
    }

    async fn prepare(
        &self,
        mut run: ActiveRun,
        codebase: &Codebase,
    ) -> Result<Prepared, ServiceError> {
        let key = run.key().clone();
        let Some(campaign) = self.config.campaigns.campaign(&key.campaign) else {
            return Ok(unassignable(
                UNKNOWN_CAMPAIGN,
                format!("the campaign {} is not configured", key.campaign),
            ));
        };
        if codebase.branch_url.is_none() && !campaign.default_empty {
            return Ok(unassignable(
                NOT_IN_VCS,
                format!(
                    "{} has no branch URL, and the campaign {} needs one",
                    key.codebase, campaign.name
                ),
            ));
        }
        run.vcs = RunVcs {
            vcs_type: codebase.vcs_type,
            branch_url: codebase.branch_url.clone(),
            subpath: codebase.subpath.clone(),
        };
        let build = match self.build(campaign, &run).await? {
            Ok(build) => build,
            Err(unsupported) => {
                return Ok(unassignable(
                    UNSUPPORTED_BUILD_TARGET,
                    unsupported.to_string(),
                ));
            }
        };
        if let Some(limit) = self.probe(codebase, &mut run.vcs).await {
            return Ok(Prepared::RateLimited(limit));
        }
        let resume = if run.item.refresh {
            None
        } else {
            self.resume(codebase, campaign).await?
        };
        run.resume_from = resume.as_ref().map(|resume| resume.run_id.clone());
        let committer = self.config.committer.as_deref();
        let parts = Parts {
            run,
            campaign,
            codebase,
            build,
            resume,
            committer,
            vcs_store: &self.config.vcs_store,
        };
        Ok(
            assign(parts).map_or_else(Prepared::Unassignable, |assignment| {
                Prepared::Ready(Box::new(assignment))
            }),
        )
    }

    async fn build(
        &self,
        campaign: &Campaign,
        run: &ActiveRun,
    ) -> Result<Result<build::Build, build::Unsupported>, ServiceError> {
        let key = run.key();
        let last_build_version = match campaign.build_distribution() {
            Some(distribution) => {
                self.runs
                    .last_build_version(&key.codebase, distribution)
                    .await?
            }
            None => None,
        };
        let request = BuildRequest {
            codebase: &key.codebase,
            change_set: key.change_set.as_deref(),
            last_build_version: last_build_version.as_deref(),
        };
        Ok(build::build(
            campaign,
            &self.config.campaigns,
            &self.config.build,
            request,
        ))
    }

    /// Looks at the branch; answers the limit if its host wants to be left alone.
    async fn probe(&self, codebase: &Codebase, vcs: &mut RunVcs) -> Option<HostBackoff> {
        if codebase.branch_url.is_none() || self.config.use_cached_only {
            return None;
        }
        match timeout(PROBE_PATIENCE, self.vcs.probe(codebase)).await {
            Ok(Probe::Availability { url, vcs_type }) => {
                vcs.branch_url = Some(url);
                vcs.vcs_type = Some(vcs_type);
                None
            }
            Ok(Probe::RateLimited(until)) => Some(HostBackoff {
                host: codebase.host()?,
                until,
            }),
            Ok(Probe::Unknown(_)) | Err(_) => None,
        }
    }

    async fn resume(
        &self,
        codebase: &Codebase,
        campaign: &Campaign,
    ) -> Result<Option<Resume>, ServiceError> {
        let Some(name) = codebase
            .name
            .clone()
            .filter(|_| !self.config.use_cached_only)
        else {
            return Ok(None);
        };
        let Ok(Some(branch)) = timeout(
            RESUME_PATIENCE,
            self.vcs.earlier_branch(codebase, &campaign.name),
        )
        .await
        else {
            return Ok(None);
        };
        let pair = crate::domain::schedule::Pair {
            codebase: name,
            campaign: campaign.name.clone(),
        };
        let run = self.runs.run_of_revision(&pair, &branch.revision).await?;
        Ok(run.and_then(|run| Resume::from_run(run, branch.url)))
    }
}

fn unassignable(code: &'static str, description: String) -> Prepared {
    Prepared::Unassignable(Unassignable { code, description })
}
