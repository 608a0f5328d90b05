//! Which of several runners does what only one may do: follow-ups, news, watching. A role is held for a few seconds at
//! a time, so that another runner takes over soon after its holder died.

use crate::ports::LeaderElection;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// The one role that there is: all timers stay together, so that each is led by the same process.
const TIMERS: &str = "timers";
/// How long a role is held without a renewal.
const TERM: Duration = Duration::from_secs(4);
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// Whether this process leads.
pub struct Leader {
    leader_election: Arc<dyn LeaderElection>,
    /// Who this process is.
    holder: String,
    /// Until when, by our own clock: a process that was stopped for a while does not go on as if nothing had happened.
    until: Mutex<Option<Instant>>,
}

impl Leader {
    /// Not leading yet; see [`Leader::run`].
    pub fn new(leader_election: Arc<dyn LeaderElection>, holder: String) -> Self {
        Self {
            leader_election,
            holder,
            until: Mutex::new(None),
        }
    }

    /// Whether this process leads now.
    pub fn leads(&self) -> bool {
        self.until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
    }

    /// Answers whether this process led until now.
    fn set(&self, until: Option<Instant>) -> bool {
        let led = self.leads();
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        led
    }

    /// Takes or keeps the role once; without an answer in time, it is taken to be lost.
    pub async fn renew(&self) {
        let asked = Instant::now();
        let held = timeout(
            RENEW_EVERY,
            self.leader_election.acquire(TIMERS, &self.holder, TERM),
        )
        .await;
        let leads = matches!(held, Ok(Ok(true)));
        if self.set(leads.then(|| asked + TERM)) != leads {
            tracing::info!(
                leads,
                "the runner that follows up, tells news and watches has changed"
            );
        }
    }

    /// Takes or keeps the role for ever.
    pub async fn run(&self) {
        loop {
            self.renew().await;
            tokio::time::sleep(RENEW_EVERY).await;
        }
    }

    /// Hands the role over.
    pub async fn resign(&self) {
        if self.set(None)
            && let Err(error) = self.leader_election.resign(TIMERS, &self.holder).await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the next leader must wait for the end of the term"
            );
        }
    }
}
