//! Assigns queue items to workers.
//!
//! Assigning claims an item first and prepares the assignment after that: probes its branch, looks
//! for a branch to resume from, resolves its build. An item that cannot be assigned ends as a
//! failed run, an item on a host that limits our rate goes back to the queue, and the next one is
//! tried.

use super::{
    CoordinatorConfig, ServiceError,
    finish::Finisher,
    prober::{Probed, Prober},
    resumption::{Resumable, Resumption},
    status_publisher::StatusPublisher,
    worker_limits::{Place, WorkerLimits},
};
use crate::{
    domain::{
        Invalid,
        active_run::{ActiveRun, Claimant, RunVcs},
        assignment::{Assignment, ColocatedBranches, Parts, Unassignable, assign},
        branch_query::BranchQuery,
        build::{self, BuildRequest},
        campaign::{BuildTarget, Campaign},
        codebase::Codebase,
        finish::{NOT_IN_VCS, UNKNOWN_CAMPAIGN, UNSUPPORTED_BUILD_TARGET},
        name::{CampaignName, CodebaseName, RunId},
        redact::redact,
        termination::{Abandonment, RUN_DISAPPEARED},
        time::Time,
        vcs::VcsType,
    },
    metrics::Metrics,
    ports::{
        ActiveRunStore, Clock, Fault, HostBackoffs, Ids, QueueStore, RunStore,
        active_runs::{ActiveRunUpdate, ClaimRequest, Claimed},
        host_backoff::HostBackoff,
        queue_store::{ClaimFilter, NextItem},
    },
};
use chrono::TimeDelta;
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// Items that one request tries. When so many in a row cannot be assigned, the worker asks again.
const MAX_TRIES: usize = 50;
/// After how long no further item is tried: each may wait for hosts that answer slowly.
const MAX_TRYING: Duration = Duration::from_secs(10);
/// After which time a worker asks again when all tries of its request met limited hosts.
const NEXT_TRY_DELAY: TimeDelta = TimeDelta::seconds(1);

/// A worker's request for an assignment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AssignRequest {
    /// The worker.
    pub claimant: Claimant,
    /// Assign only items of this codebase.
    pub codebase: Option<String>,
    /// Assign only items of this campaign.
    pub campaign: Option<String>,
    /// Whether the worker takes part in leases.
    pub lease: bool,
    /// Whether the worker may have only so many runs; operators may have any number.
    pub is_limited: bool,
}

/// What became of a claimed item.
enum Prepared {
    /// It can be assigned.
    Ready(Box<Assignment>),
    /// It can never be assigned: its run ends with this code.
    Unassignable(Unassignable),
    /// The host of its branch limits our rate.
    RateLimited(HostBackoff),
}

/// Assigns queue items: the ports and settings that this needs.
pub struct Assigner {
    /// The queue.
    pub queue: Arc<dyn QueueStore>,
    /// The active runs.
    pub active_runs: Arc<dyn ActiveRunStore>,
    /// The hosts that are backing off.
    pub host_backoffs: Arc<dyn HostBackoffs>,
    /// The finished runs.
    pub runs: Arc<dyn RunStore>,
    /// Probes branches.
    pub prober: Arc<Prober>,
    /// Looks for branches to resume from.
    pub resumption: Arc<Resumption>,
    /// What one worker may use.
    pub worker_limits: Arc<WorkerLimits>,
    /// Ends the runs of items that cannot be assigned.
    pub finisher: Arc<Finisher>,
    /// Publishes the active runs after each change.
    pub status_publisher: Arc<StatusPublisher>,
    /// The source of the time.
    pub clock: Arc<dyn Clock>,
    /// The source of run ids and claim tokens.
    pub ids: Arc<dyn Ids>,
    /// The campaigns, and the rules by which items are assigned.
    pub config: Arc<CoordinatorConfig>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The tasks that go on after their caller has gone; the process ends after them.
    pub tasks: TaskTracker,
}

/// Returns once for each item that a request tries.
fn tries() -> impl Iterator<Item = usize> {
    let started = Instant::now();
    (0..MAX_TRIES).take_while(move |_| started.elapsed() < MAX_TRYING)
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
    /// Assigns the next item that matches.
    ///
    /// A caller that drops the future before it completes leaves nothing claimed. The assignment
    /// is boxed, because thousands of requests may wait, each with space for one.
    ///
    /// # Errors
    ///
    /// `QueueEmpty` when no item matches, `RateLimited` when items match but all of them are on
    /// hosts that limit our rate, `Invalid` when the filter is not valid, `TooManyOfWorker` when the
    /// worker has as many runs as it may have.
    #[tracing::instrument(
        name = "services.assign.assign",
        skip_all,
        fields(worker = request.claimant.worker)
    )]
    pub async fn assign(
        self: &Arc<Self>,
        request: AssignRequest,
    ) -> Result<Box<Assignment>, ServiceError> {
        let limited = request
            .claimant
            .worker
            .as_deref()
            .filter(|_| request.is_limited);
        let place = match limited {
            Some(worker) => Some(self.worker_limits.place(worker).await?),
            None => None,
        };
        let (sender, receiver) = oneshot::channel();
        let this = self.clone();
        // On a task of its own: when the client goes away, its request is dropped at whichever
        // await it has reached. If claiming happened there, the claim would stay without a worker.
        let task = async move {
            let outcome = this.claim_next(request).await;
            let is_claimed = outcome.is_ok();
            match sender.send(outcome) {
                // Its place is free again only after this.
                Err(Ok(unwanted)) => this.release(&unwanted.run).await,
                Ok(()) if is_claimed => place.into_iter().for_each(Place::keep),
                Ok(()) | Err(Err(_)) => {}
            }
        };
        self.tasks.spawn(task.in_current_span());
        let stopped = |_| Fault::unavailable("assign", "the runner is stopping");
        receiver.await.map_err(stopped)?
    }

    async fn release(&self, run: &ActiveRun) {
        if let Err(error) = self
            .active_runs
            .release(&run.id, &run.token, self.clock.now())
            .await
        {
            tracing::error!(
                run.id = %run.id,
                error = &error as &dyn std::error::Error,
                "an item stays claimed until the watcher ends it"
            );
        }
        self.status_publisher.queue_changed();
    }

    /// Ends the runs that the worker still holds with the same backchannel. A worker at one address
    /// works on one run at a time, so that it has lost those when it asks for the next.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Fault`] when a store fails.
    async fn end_lost_runs(&self, claimant: &Claimant) -> Result<(), ServiceError> {
        for run in self.active_runs.held_by(claimant).await? {
            // A lease ends by itself soon. A worker that never received its assignment, because
            // the runner was killed, would have a failure counted otherwise.
            if run.lease_until.is_some() {
                continue;
            }
            tracing::info!(run.id = %run.id, "ending a run whose worker asks for another");
            let why = "its worker asked for another run".to_owned();
            let how = Abandonment::new(&run, RUN_DISAPPEARED, why, self.clock.now());
            // Only if nothing was heard of it since: two requests of one worker may overlap.
            let ended = self.finisher.abandon(&run, how, Some(run.keepalive)).await;
            match ended {
                Ok(ended) if ended.first_time => self.metrics.watchdog_ended(RUN_DISAPPEARED),
                Ok(_) | Err(ServiceError::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn claim_next(&self, request: AssignRequest) -> Result<Box<Assignment>, ServiceError> {
        self.end_lost_runs(&request.claimant).await?;
        let mut filter = request.filter(&self.config)?;
        let mut limited: Option<Time> = None;
        let mut is_all = false;
        for _ in tries() {
            let claim = ClaimRequest {
                filter: filter.clone(),
                claimant: request.claimant.clone(),
                run_id: RunId::new(self.ids.fresh()),
                token: self.ids.fresh(),
                now: self.clock.now(),
                lease: request.lease.then_some(self.config.watch.lease),
            };
            let Some(Claimed { run, codebase }) = self.active_runs.claim(claim).await? else {
                is_all = true;
                break;
            };
            // Not claimed twice by one request: an item that goes back to the queue, or is queued
            // again at once, would use up all tries.
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
        // Behind the items that were tried there may be others, which wait for no host.
        let soon = (!is_all).then(|| self.clock.now() + NEXT_TRY_DELAY);
        let until = limited.map(|limited| soon.map_or(limited, |soon| soon.min(limited)));
        Err(until.map_or(ServiceError::QueueEmpty, ServiceError::RateLimited))
    }

    fn assigned(&self, assignment: Box<Assignment>) -> Box<Assignment> {
        self.metrics
            .assigned(assignment.run.claimant.worker.as_deref());
        self.status_publisher.queue_changed();
        assignment
    }

    async fn rate_limited(&self, run: &ActiveRun, limit: HostBackoff) -> Result<(), ServiceError> {
        self.metrics.host_rate_limited(&limit.host);
        let recorded = self.host_backoffs.back_off_host(limit).await;
        // Released in any case: without it the item would stay claimed when the store fails.
        self.release(run).await;
        Ok(recorded?)
    }

    /// Prepares a claimed item; releases it when that fails.
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

    /// Returns what would be assigned next, without claiming it.
    ///
    /// # Errors
    ///
    /// As [`Assigner::assign`].
    #[tracing::instrument(name = "services.assign.peek", skip_all)]
    pub async fn peek(&self) -> Result<Assignment, ServiceError> {
        let mut filter = AssignRequest::default().filter(&self.config)?;
        let mut limited = None;
        for _ in tries() {
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
                Prepared::RateLimited(limit) => {
                    limited =
                        Some(limited.map_or(limit.until, |until: Time| until.min(limit.until)));
                    // Whoever asks, the host is left alone from now on.
                    self.host_backoffs.back_off_host(limit).await?;
                }
            }
        }
        Err(limited.map_or(ServiceError::QueueEmpty, ServiceError::RateLimited))
    }

    /// Returns the campaign of a run, or why the run cannot be assigned.
    fn campaign_of(&self, run: &ActiveRun, codebase: &Codebase) -> Result<&Campaign, Unassignable> {
        let key = run.key();
        let Some(campaign) = self.config.campaigns.campaign(&key.campaign) else {
            return Err(Unassignable {
                code: UNKNOWN_CAMPAIGN,
                description: format!("the campaign {} is not configured", key.campaign),
            });
        };
        if codebase.branch_url.is_none() && !campaign.default_empty {
            return Err(Unassignable {
                code: NOT_IN_VCS,
                description: format!(
                    "{} has no branch URL, and the campaign {} needs one",
                    key.codebase, campaign.name
                ),
            });
        }
        Ok(campaign)
    }

    async fn prepare(
        &self,
        mut run: ActiveRun,
        codebase: &Codebase,
    ) -> Result<Prepared, ServiceError> {
        let campaign = match self.campaign_of(&run, codebase) {
            Ok(campaign) => campaign,
            Err(unassignable) => return Ok(Prepared::Unassignable(unassignable)),
        };
        run.vcs = RunVcs {
            vcs_type: codebase.vcs_type,
            branch_url: codebase.branch_url.clone(),
            subpath: codebase.subpath.clone(),
        };
        let build = match self.build(campaign, &run).await? {
            Ok(build) => build,
            Err(unsupported) => {
                return Ok(Prepared::Unassignable(Unassignable {
                    code: UNSUPPORTED_BUILD_TARGET,
                    description: unsupported.to_string(),
                }));
            }
        };
        let colocated = match self.probe(codebase, campaign, &mut run.vcs).await {
            Ok(colocated) => colocated,
            Err(limit) => return Ok(Prepared::RateLimited(limit)),
        };
        let resume = if run.item.refresh {
            None
        } else {
            let found = self
                .resumption
                .find(codebase, run.vcs.vcs_type, campaign)
                .await?;
            match found {
                Resumable::From(resume) => Some(*resume),
                Resumable::Nothing(_) => None,
                Resumable::RateLimited(limit) => return Ok(Prepared::RateLimited(limit)),
            }
        };
        run.resume_from = resume.as_ref().map(|resume| resume.run_id.clone());
        let committer = self.config.committer.as_deref();
        let parts = Parts {
            run,
            campaign,
            codebase,
            build,
            colocated,
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

    /// Resolves what a run is to build.
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

    /// Probes the branch of a codebase and stores in `vcs` what it found; returns the colocated
    /// branches, if they were asked for.
    ///
    /// A branch that cannot be probed is assigned all the same: the worker finds out more.
    ///
    /// # Errors
    ///
    /// The backoff, if the host limits our rate.
    async fn probe(
        &self,
        codebase: &Codebase,
        campaign: &Campaign,
        vcs: &mut RunVcs,
    ) -> Result<Option<ColocatedBranches>, HostBackoff> {
        let Some(branch_url) = codebase.branch_url.as_deref() else {
            return Ok(None);
        };
        let Ok(query) = BranchQuery::of_branch(branch_url, codebase.vcs_type) else {
            return Ok(None);
        };
        let query = BranchQuery {
            colocated: matches!(campaign.build, Some(BuildTarget::Debian(_))),
            ..query
        };
        let found = match self.prober.probe(&query).await {
            Probed::Found(found) => found,
            Probed::Unknown(why) => {
                tracing::debug!(branch_url = redact(branch_url), why, "a branch is unknown");
                return Ok(None);
            }
            Probed::RateLimited(limit) => return Err(limit),
        };
        // A repository without that branch is no better known than one that is not there.
        if found.revision.is_none() {
            return Ok(None);
        }
        vcs.branch_url = Some(found.branch_url(&query));
        vcs.vcs_type = Some(found.vcs_type);
        let is_asked = query.colocated && found.vcs_type == VcsType::Git;
        Ok(is_asked.then(|| found.colocated()))
    }
}
