//! Tells the other services what happened.

use super::{Fault, host_backoff::HostBackoff};
use crate::domain::{active_run::ActiveRun, publish::PublishStatus, run::Run, time::Time};
use async_trait::async_trait;

/// Something that others want to know. Each is sent on its own channel.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Channel `queue`: what runs now.
    Queue(Box<Status>),
    /// Channel `result`: a run was stored.
    Result(Box<Run>),
    /// Channel `publish-status`: somebody decided about a run.
    PublishStatus(Box<Run>),
}

impl Event {
    /// The news of a stored run: its result, or a publish status that it got.
    pub fn of_run(run: Run, publish_status: Option<PublishStatus>) -> Self {
        match publish_status {
            None => Self::Result(Box::new(run)),
            Some(publish_status) => Self::PublishStatus(Box::new(Run {
                publish_status,
                ..run
            })),
        }
    }
}

/// What runs now.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs)]
pub struct Status {
    pub processing: Vec<ActiveRun>,
    pub avoid_hosts: Vec<String>,
    pub rate_limit_hosts: Vec<HostBackoff>,
    pub now: Time,
}

/// Sends events.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait EventBus: Send + Sync {
    /// Sends an event to whoever listens. Nobody listening is no failure.
    async fn publish(&self, event: Event) -> Result<(), Fault>;

    /// Whether events can be sent right now.
    async fn health_check(&self) -> Result<(), Fault>;
}
