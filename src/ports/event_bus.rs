//! The event bus, by which the other services learn what happened.

use super::{Fault, host_backoff::HostBackoff};
use crate::domain::{active_run::ActiveRun, publish::PublishStatus, run::Run, time::Time};
use async_trait::async_trait;

/// An event. Each kind is published on a channel of its own.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Channel `queue`: the status changed.
    Queue(Box<Status>),
    /// Channel `result`: a run was stored.
    Result(Box<Run>),
    /// Channel `publish-status`: the publish status of a run changed.
    PublishStatus(Box<Run>),
}

impl Event {
    /// Creates the event of a stored run: its result, or its new publish status if one is given.
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

/// The status of the runner.
#[derive(Debug, Clone, PartialEq)]
pub struct Status {
    /// The active runs.
    pub processing: Vec<ActiveRun>,
    /// The hosts that the settings avoid.
    pub avoid_hosts: Vec<String>,
    /// The hosts that are backing off.
    pub rate_limit_hosts: Vec<HostBackoff>,
    /// The hosts that are not probed for a moment, since they did not respond in time.
    pub slow_hosts: Vec<String>,
    /// The time of the status.
    pub now: Time,
}

/// Publishes events.
#[cfg_attr(any(test, feature = "test-support"), mockall::automock)]
#[async_trait]
pub trait EventBus: Send + Sync {
    /// Publishes an event to all subscribers. Having none is not an error.
    ///
    /// # Errors
    ///
    /// [`Fault`] when the event could not be published; it may have reached some subscribers.
    async fn publish(&self, event: Event) -> Result<(), Fault>;

    /// Returns when events can be published right now.
    ///
    /// # Errors
    ///
    /// [`Fault`] with the reason when they cannot.
    async fn health_check(&self) -> Result<(), Fault>;
}
