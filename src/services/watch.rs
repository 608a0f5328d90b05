//! Watches active runs: asks their workers for a sign of life, and ends those that are gone.

use super::{Deployment, ServiceError, finish::Finisher, lead::Leader};
use crate::{
    domain::{
        active_run::ActiveRun,
        watch::{Verdict, is_due, judge},
    },
    metrics::Metrics,
    ports::{Backchannel, Claims, ClaimsError, Clock},
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::Semaphore, task::JoinSet};

/// Workers asked at the same time.
const AT_ONCE: usize = 64;

/// Watches active runs.
pub struct Watcher {
    claims: Arc<dyn Claims>,
    backchannel: Arc<dyn Backchannel>,
    finisher: Arc<Finisher>,
    clock: Arc<dyn Clock>,
    deployment: Arc<Deployment>,
    leader: Arc<Leader>,
    metrics: Arc<Metrics>,
}

impl Watcher {
    /// Not yet running; see [`Watcher::run`].
    pub fn new(
        claims: Arc<dyn Claims>,
        backchannel: Arc<dyn Backchannel>,
        finisher: Arc<Finisher>,
        clock: Arc<dyn Clock>,
        deployment: Arc<Deployment>,
        leader: Arc<Leader>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { claims, backchannel, finisher, clock, deployment, leader, metrics }
    }

    /// Goes round every `interval`, for ever. A round that fails is logged, and the next one tries again.
    pub async fn run(self: Arc<Self>, interval: Duration) {
        loop {
            tokio::time::sleep(interval).await;
            if !self.leader.leads() {
                continue;
            }
            if let Err(error) = self.clone().round().await {
                tracing::warn!(error = &error as &dyn std::error::Error, "the active runs cannot be watched");
            }
        }
    }

    /// Looks at every active run once; no slow worker delays another.
    pub async fn round(self: Arc<Self>) -> Result<(), ServiceError> {
        let now = self.clock.now();
        let due = self.claims.list().await?.into_iter().filter(|run| is_due(run, now, self.deployment.run_timeout));
        let (turns, mut round) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
        for run in due {
            let (this, turns) = (self.clone(), turns.clone());
            round.spawn(async move {
                let _turn = turns.acquire().await;
                let id = run.id.clone();
                if let Err(error) = this.look_at(run).await {
                    tracing::warn!(run.id = %id, error = &error as &dyn std::error::Error, "an active run cannot be watched");
                }
            });
        }
        while round.join_next().await.is_some() {}
        Ok(())
    }

    async fn look_at(&self, run: ActiveRun) -> Result<(), ServiceError> {
        let ping = self.backchannel.ping(&run).await;
        let now = self.clock.now();
        match judge(&run, ping, now, self.deployment.run_timeout) {
            Verdict::Wait => Ok(()),
            Verdict::Alive => match self.claims.renew(&run.id, &run.token, now).await {
                // It ended meanwhile.
                Err(ClaimsError::ClaimLost(_)) => Ok(()),
                renewed => Ok(renewed?),
            },
            Verdict::End { code, description } => {
                tracing::info!(run.id = %run.id, code, description, "ends a run whose worker is gone");
                self.metrics.watchdog_ended(code);
                self.finisher.end(&run, code, description, true).await.map(drop)
            }
        }
    }
}
