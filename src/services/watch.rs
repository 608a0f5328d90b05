//! Watches active runs: ends those whose lease ran out, asks the other workers for a sign of life, and ends the runs of
//! those that are gone.

use super::{
    CoordinatorConfig, ServiceError, finish::Finisher, leadership::Leader, live_log::LiveLogIngest,
};
use crate::{
    domain::{
        active_run::ActiveRun,
        name::RunId,
        time::Time,
        watch::{Ping, Verdict, WORKER_TIMEOUT},
    },
    metrics::Metrics,
    ports::{
        ActiveRunStore, ActiveRunStoreError, Backchannel, Clock,
        active_runs::{ActiveRunUpdate, Renewal},
    },
};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};

/// A round that takes longer than so many intervals, and than this, stands still.
const ROUNDS_MISSED: u32 = 6;
const LONGEST_ROUND: Duration = Duration::from_secs(90);

/// What a watcher needs.
pub struct WatcherPorts {
    /// The active runs.
    pub active_runs: Arc<dyn ActiveRunStore>,
    /// The way to their workers.
    pub backchannel: Arc<dyn Backchannel>,
    /// Ends them.
    pub finisher: Arc<Finisher>,
    /// What their workers sent.
    pub live_log: Arc<LiveLogIngest>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The rules.
    pub config: Arc<CoordinatorConfig>,
    /// Whether this process watches.
    pub leader: Arc<Leader>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// How often it looks, and how many workers it asks at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs)]
pub struct PollConfig {
    pub interval: Duration,
    pub at_once: usize,
}

/// Watches active runs.
pub struct Watcher {
    ports: WatcherPorts,
    pace: PollConfig,
    turns: Arc<Semaphore>,
    /// When each worker was last asked.
    asked: Mutex<HashMap<RunId, Time>>,
    /// When it last was seen to go on.
    beat: Mutex<Instant>,
}

/// An active run, and how its watching goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    /// The run.
    pub run: ActiveRun,
    /// In a word.
    pub status: &'static str,
}

impl Watcher {
    /// Not yet running; see [`Watcher::run`].
    pub fn new(ports: WatcherPorts, pace: PollConfig) -> Self {
        let turns = Arc::new(Semaphore::new(pace.at_once));
        Self {
            ports,
            pace,
            turns,
            asked: Mutex::default(),
            beat: Mutex::new(Instant::now()),
        }
    }

    fn beat(&self) {
        *self.beat.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// Why nobody watches, if this process should and does not.
    pub fn stands_still(&self) -> Option<String> {
        let still = self
            .beat
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed();
        let longest = LONGEST_ROUND.max(self.pace.interval * ROUNDS_MISSED);
        (still > longest).then(|| {
            format!(
                "the active runs were last watched {} s ago",
                still.as_secs()
            )
        })
    }

    /// Goes round every interval, for ever. A round that fails is logged, and the next one tries again.
    pub async fn run(self: Arc<Self>) {
        loop {
            self.beat();
            tokio::time::sleep(self.pace.interval).await;
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

    /// Looks at every active run once; no slow worker delays another.
    pub async fn round(self: Arc<Self>) -> Result<(), ServiceError> {
        let now = self.ports.clock.now();
        // Before the runs: a run is active before it has a log.
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
                "logs of runs that have ended stay until the next round"
            );
        }
        self.asked
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
                let _turn = this.turns.acquire().await;
                let id = task.run.id.clone();
                if let Err(error) = this.look_at(task).await {
                    tracing::warn!(run.id = %id, error = &error as &dyn std::error::Error, "an active run cannot be watched");
                }
                this.beat();
            });
        }
        while round.join_next().await.is_some() {}
        Ok(())
    }

    /// What is to be done about a run in this round.
    fn task(&self, run: ActiveRun, now: Time) -> Option<Task> {
        let rules = &self.ports.config.watch;
        if let Some(verdict) = rules.lease_ran_out(&run, now) {
            return Some(Task {
                run,
                verdict: Some(verdict),
            });
        }
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if !rules.is_due(&run, asked.get(&run.id).copied(), now) {
            return None;
        }
        asked.insert(run.id.clone(), now);
        Some(Task { run, verdict: None })
    }

    async fn look_at(&self, Task { run, verdict }: Task) -> Result<(), ServiceError> {
        let verdict = if let Some(verdict) = verdict {
            verdict
        } else {
            let ping = self.ports.backchannel.ping(&run).await;
            self.ports.metrics.pinged(kind(&run), outcome(&ping));
            self.ports
                .config
                .watch
                .judge(&run, ping, self.ports.clock.now())
        };
        let done = match verdict {
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
            Verdict::End { code, description } => {
                return self.give_up(run, code, description).await;
            }
        };
        match done {
            // It ended meanwhile.
            Err(ActiveRunStoreError::ClaimLost(_)) => Ok(()),
            done => Ok(done?),
        }
    }

    async fn give_up(
        &self,
        run: ActiveRun,
        code: &'static str,
        description: String,
    ) -> Result<(), ServiceError> {
        tracing::info!(run.id = %run.id, code, description, "ends a run whose worker is gone");
        match self.ports.finisher.abandon(&run, code, description).await {
            // It gave a sign of life meanwhile, or handed in its result.
            Err(ServiceError::NotFound { .. }) => return Ok(()),
            given_up => drop(given_up?),
        }
        self.ports.metrics.watchdog_ended(code);
        // It may be there all the same, and work on for nothing. One with a lease asks by itself, and is told whether it does.
        if code == WORKER_TIMEOUT && run.lease_until.is_none() {
            let backchannel = self.ports.backchannel.clone();
            tokio::spawn(async move { backchannel.kill(&run).await });
        }
        Ok(())
    }

    /// How the watching of each active run goes, by any process.
    pub async fn overview(&self) -> Result<Vec<Watched>, ServiceError> {
        let (now, rules) = (self.ports.clock.now(), &self.ports.config.watch);
        let status = |run: &ActiveRun| match run {
            run if run.cancel.is_some() => "cancelled",
            run if rules.lease_ran_out(run, now).is_some() => "lease ran out",
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

/// A run that something is to be done about.
struct Task {
    run: ActiveRun,
    /// Known without a ping.
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
        Ping::Failed(_) => "failed",
    }
}
