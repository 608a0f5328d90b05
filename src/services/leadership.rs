//! Leadership: which of several runners does what only one may do, which are the follow-ups, the
//! outbox and the watching. The role is leased for a few seconds at a time, so that another runner
//! takes over soon after its holder died.

use crate::ports::LeaderElection;
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// The only role: all background tasks run on the same process. The value is stored.
const BACKGROUND_ROLE: &str = "timers";
/// How long the role is held without a renewal.
const LEASE_TTL: Duration = Duration::from_secs(4);
/// How often the role is renewed, and how long a renewal may take.
const RENEW_INTERVAL: Duration = Duration::from_secs(1);

/// Takes part in the leader election for this process.
pub struct Leader {
    election: Arc<dyn LeaderElection>,
    /// The name of this process, which differs from that of every other.
    holder: String,
    /// The end of the lease by the monotonic clock of this process: one that was suspended for a
    /// while must not go on as if it still led.
    until: Mutex<Option<Instant>>,
}

impl Leader {
    /// Creates a leader that does not lead yet; see [`Leader::run`].
    pub fn new(election: Arc<dyn LeaderElection>, holder: String) -> Self {
        Self {
            election,
            holder,
            until: Mutex::new(None),
        }
    }

    /// Returns whether this process leads now.
    pub fn leads(&self) -> bool {
        self.until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some_and(|until| Instant::now() < until)
    }

    /// Sets the end of the lease, and returns whether this process led until now.
    fn set(&self, until: Option<Instant>) -> bool {
        let led = self.leads();
        *self.until.lock().unwrap_or_else(PoisonError::into_inner) = until;
        led
    }

    /// Acquires or renews the role once. When the store does not respond in time, the role counts
    /// as lost.
    pub async fn renew(&self) {
        // The lease is counted from before the call: counted from its end, this process would lead
        // longer than the store knows.
        let started = Instant::now();
        let held = timeout(
            RENEW_INTERVAL,
            self.election
                .acquire(BACKGROUND_ROLE, &self.holder, LEASE_TTL),
        )
        .await;
        let leads = matches!(held, Ok(Ok(true)));
        if self.set(leads.then(|| started + LEASE_TTL)) != leads {
            tracing::info!(
                leads,
                "this runner has started or stopped to lead the background tasks"
            );
        }
    }

    /// Acquires or renews the role for ever.
    pub async fn run(&self) {
        loop {
            self.renew().await;
            tokio::time::sleep(RENEW_INTERVAL).await;
        }
    }

    /// Resigns, so that another process can take over at once.
    pub async fn resign(&self) {
        if self.set(None)
            && let Err(error) = self.election.resign(BACKGROUND_ROLE, &self.holder).await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the next leader must wait for the lease to expire"
            );
        }
    }
}
