//! Watches active runs: ends those whose lease has expired, pings the workers without a lease, and
//! ends the runs of those that are gone.

use super::{
    CoordinatorConfig, ServiceError, finish::Finisher, leadership::Leader, live_log::LiveLogIngest,
};
use crate::{
    domain::{
        active_run::ActiveRun,
        name::RunId,
        termination::{Abandonment, WORKER_TIMEOUT},
        time::Time,
        watch::{Ping, Verdict},
    },
    metrics::Metrics,
    ports::{
        ActiveRunStore, ActiveRunStoreError, Backchannel, Clock,
        active_runs::{ActiveRunUpdate, Renewal},
    },
};
use chrono::TimeDelta;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

/// The watcher counts as stalled after this many intervals, and [`MAX_ROUND_DURATION`], without
/// progress.
const MAX_MISSED_ROUNDS: u32 = 6;
/// The longest time without progress that a slow worker may cause.
const MAX_ROUND_DURATION: Duration = Duration::from_secs(90);

/// The ports and services that a watcher uses.
pub struct WatcherPorts {
    /// The active runs.
    pub active_runs: Arc<dyn ActiveRunStore>,
    /// Calls the workers.
    pub backchannel: Arc<dyn Backchannel>,
    /// Ends the runs of workers that are gone.
    pub finisher: Arc<Finisher>,
    /// The logs that workers sent.
    pub live_log: Arc<LiveLogIngest>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The configuration, with the rules.
    pub config: Arc<CoordinatorConfig>,
    /// Decides whether this process watches.
    pub leader: Arc<Leader>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// How often active runs are watched, and how many at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PollConfig {
    /// The time between two rounds.
    pub interval: Duration,
    /// The maximum number of workers that are pinged at the same time.
    pub max_concurrent_pings: usize,
}

/// Watches active runs.
pub struct Watcher {
    ports: WatcherPorts,
    poll: PollConfig,
    permits: Arc<Semaphore>,
    /// The time of the last ping of each run.
    last_pings: Mutex<HashMap<RunId, Time>>,
    /// The time of the last progress.
    last_progress: Mutex<Instant>,
}

/// An active run with its watch status.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    /// The run.
    pub run: ActiveRun,
    /// One of `alive`, `silent`, `suspect`, `lease ran out` and `cancelled`.
    pub status: &'static str,
}

impl Watcher {
    /// Creates a watcher that does not run yet; see [`Watcher::run`].
    pub fn new(ports: WatcherPorts, poll: PollConfig) -> Self {
        let permits = Arc::new(Semaphore::new(poll.max_concurrent_pings));
        Self {
            ports,
            poll,
            permits,
            last_pings: Mutex::default(),
            last_progress: Mutex::new(Instant::now()),
        }
    }

    fn mark_progress(&self) {
        *self
            .last_progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Returns for how long the watcher has been stalled, in words; `None` while it makes progress.
    pub fn stalled_for(&self) -> Option<String> {
        let elapsed = self
            .last_progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed();
        let max_elapsed = MAX_ROUND_DURATION.max(self.poll.interval * MAX_MISSED_ROUNDS);
        (elapsed > max_elapsed).then(|| {
            format!(
                "the active runs were last watched {} s ago",
                elapsed.as_secs()
            )
        })
    }

    /// Watches all active runs every interval, for ever. A round that fails is logged, and the next
    /// one tries again.
    pub async fn run(self: Arc<Self>) {
        loop {
            // A process that does not lead makes progress too: its watcher is able to take over.
            self.mark_progress();
            tokio::time::sleep(self.poll.interval).await;
            if !self.ports.leader.leads() {
                continue;
            }
            if let Err(error) = self.clone().round().await {
                self.ports.metrics.failed("watch", "watcher");
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the active runs cannot be watched"
                );
            }
        }
    }

    /// Watches every active run once. A slow worker does not delay the others.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Fault`] when the active runs cannot be listed. A failure with one run is
    /// logged.
    #[tracing::instrument(name = "services.watch.round", level = "debug", skip_all)]
    pub async fn round(self: Arc<Self>) -> Result<(), ServiceError> {
        let now = self.ports.clock.now();
        // Listed before the runs, because a run is active before it has a log: the other way round,
        // the logs of a run that begins in between would be removed.
        let with_logs = self.ports.live_log.runs().await?;
        let active = self.ports.active_runs.list().await?;
        let known: HashSet<&RunId> = active.iter().map(|run| &run.id).collect();
        let ended: Vec<RunId> = with_logs
            .into_iter()
            .filter(|id| !known.contains(id))
            .collect();
        if let Err(error) = self.ports.live_log.forget(&ended).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the logs of ended runs cannot be removed; the next round tries again"
            );
        }
        self.last_pings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|id, _| known.contains(id));
        let mut round = JoinSet::new();
        for run in active {
            let Some(task) = self.task(run, now) else {
                continue;
            };
            let this = self.clone();
            round.spawn(async move {
                let _permit = this.permits.acquire().await;
                let id = task.run.id.clone();
                if let Err(error) = this.watch_run(task).await {
                    tracing::warn!(
                        run.id = %id,
                        error = &error as &dyn std::error::Error,
                        "an active run cannot be watched"
                    );
                }
                this.mark_progress();
            });
        }
        while round.join_next().await.is_some() {}
        Ok(())
    }

    /// Returns how long runs of its campaign may take, if the campaign has a limit of its own.
    fn max_duration_of(&self, run: &ActiveRun) -> Option<TimeDelta> {
        let campaign = self.ports.config.campaigns.campaign(&run.key().campaign)?;
        let minutes = campaign.max_run_duration_minutes?;
        Some(TimeDelta::minutes(minutes.into()))
    }

    /// Returns what to do with a run in this round, if anything.
    fn task(&self, run: ActiveRun, now: Time) -> Option<Task> {
        let rules = &self.ports.config.watch;
        let known = rules.lease_expired(&run, now).or_else(|| {
            let overdue = rules.overdue(&run, self.max_duration_of(&run), now);
            overdue.map(Verdict::End)
        });
        if let Some(verdict) = known {
            return Some(Task {
                run,
                verdict: Some(verdict),
            });
        }
        let mut last_pings = self
            .last_pings
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if !rules.is_due(&run, last_pings.get(&run.id).copied(), now) {
            return None;
        }
        last_pings.insert(run.id.clone(), now);
        Some(Task { run, verdict: None })
    }

    #[tracing::instrument(
        name = "services.watch.run",
        level = "debug",
        skip_all,
        fields(run.id = %run.id)
    )]
    async fn watch_run(&self, Task { run, verdict }: Task) -> Result<(), ServiceError> {
        let verdict = if let Some(verdict) = verdict {
            verdict
        } else {
            let ping = self.ports.backchannel.ping(&run).await;
            self.ports.metrics.pinged(kind(&run), outcome(&ping));
            if ping.is_response() && !run.claimant.has_responded {
                self.mark_responded(&run).await?;
            }
            self.ports
                .config
                .watch
                .judge(&run, ping, self.ports.clock.now())
        };
        let result = match verdict {
            Verdict::Wait => Ok(()),
            Verdict::Alive => {
                let renewal = Renewal {
                    now: self.ports.clock.now(),
                    lease: self.ports.config.watch.lease,
                };
                self.ports
                    .active_runs
                    .renew(&run.id, &run.token, renewal)
                    .await
                    .map(drop)
            }
            Verdict::Suspect => {
                self.ports
                    .active_runs
                    .update(
                        &run.id,
                        &run.token,
                        ActiveRunUpdate::Pinged {
                            failures: run.failures + 1,
                        },
                    )
                    .await
            }
            Verdict::End(how) => return self.abandon(run, how).await,
        };
        match result {
            // The run ended in the meantime.
            Err(ActiveRunStoreError::ClaimLost(_)) => Ok(()),
            result => Ok(result?),
        }
    }

    /// Stores that the backchannel of a run has responded.
    async fn mark_responded(&self, run: &ActiveRun) -> Result<(), ServiceError> {
        let marked = self
            .ports
            .active_runs
            .update(&run.id, &run.token, ActiveRunUpdate::Responded)
            .await;
        match marked {
            // The run ended in the meantime.
            Ok(()) | Err(ActiveRunStoreError::ClaimLost(_)) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Ends a run as abandoned.
    async fn abandon(&self, run: ActiveRun, how: Abandonment) -> Result<(), ServiceError> {
        let (code, description) = (how.code, how.description.as_str());
        tracing::info!(run.id = %run.id, code, description, "ending a run whose worker is gone");
        // A run that takes too long ends although its worker goes on sending heartbeats.
        let is_overdue = self.ports.config.watch.overdue(
            &run,
            self.max_duration_of(&run),
            self.ports.clock.now(),
        );
        let unless_seen_after = is_overdue.is_none().then_some(run.keepalive);
        let abandoned = self
            .ports
            .finisher
            .abandon(&run, how, unless_seen_after)
            .await;
        match abandoned {
            Ok(ended) if ended.first_time => {}
            // The worker sent a heartbeat or its result in the meantime.
            Ok(_) | Err(ServiceError::NotFound { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.ports.metrics.watchdog_ended(code);
        // The worker may still be working on the run, for nothing. One with a lease learns that
        // from the response to its next heartbeat; another must be stopped.
        if code == WORKER_TIMEOUT && run.lease_until.is_none() {
            let backchannel = self.ports.backchannel.clone();
            tokio::spawn(async move { backchannel.kill(&run).await });
        }
        Ok(())
    }

    /// Returns the watch status of each active run, whichever process watches.
    ///
    /// # Errors
    ///
    /// [`ServiceError::Fault`] when the active runs cannot be listed.
    #[tracing::instrument(name = "services.watch.overview", skip_all)]
    pub async fn overview(&self) -> Result<Vec<Watched>, ServiceError> {
        let (now, rules) = (self.ports.clock.now(), &self.ports.config.watch);
        let status = |run: &ActiveRun| match run {
            run if run.cancel.is_some() => "cancelled",
            run if rules.lease_expired(run, now).is_some() => "lease ran out",
            run if run.failures > 0 => "suspect",
            run if run.lease_until.is_none() && now - run.keepalive >= rules.ping_after * 2 => {
                "silent"
            }
            _ => "alive",
        };
        Ok(self
            .ports
            .active_runs
            .list()
            .await?
            .into_iter()
            .map(|run| Watched {
                status: status(&run),
                run,
            })
            .collect())
    }
}

/// A run that is watched in this round.
struct Task {
    run: ActiveRun,
    /// The verdict, if it is known without a ping.
    verdict: Option<Verdict>,
}

fn kind(run: &ActiveRun) -> &'static str {
    use crate::domain::active_run::BackchannelAddress::{Http, Jenkins};
    match run.claimant.backchannel {
        Some(Http { .. }) => "http",
        Some(Jenkins { .. }) => "jenkins",
        None => "none",
    }
}

fn outcome(ping: &Ping) -> &'static str {
    match ping {
        Ping::Alive => "alive",
        Ping::Impossible => "impossible",
        Ping::Fatal(_) => "lost",
        Ping::Refused(_) => "refused",
        Ping::Failed(_) => "failed",
    }
}
