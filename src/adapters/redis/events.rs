//! Events on the channels that the publisher, archive, differ and site of a Janitor listen to.

use super::{fault, ping};
use crate::{
    adapters::wire::{PublishStatusResponse, ResultResponse, StatusResponse},
    ports::{Event, EventBus, Fault},
};
use ::redis::{AsyncCommands, aio::ConnectionManager};
use async_trait::async_trait;
use chrono::TimeDelta;

/// Publishes events on Redis channels.
pub struct RedisEvents {
    connection: ConnectionManager,
    run_timeout: TimeDelta,
}

impl RedisEvents {
    /// Publishes through this connection. The run timeout is part of the message on the channel
    /// `queue`, as the time after which a worker without a keepalive counts as lost.
    pub fn new(connection: ConnectionManager, run_timeout: TimeDelta) -> Self {
        Self {
            connection,
            run_timeout,
        }
    }

    /// Returns the channel and the text of an event.
    fn message(&self, event: &Event) -> serde_json::Result<(&'static str, String)> {
        Ok(match event {
            Event::Queue(status) => (
                "queue",
                serde_json::to_string(&StatusResponse::new(status, self.run_timeout))?,
            ),
            Event::Result(run) => (
                "result",
                serde_json::to_string(&ResultResponse::from(run.as_ref()))?,
            ),
            Event::PublishStatus(run) => (
                "publish-status",
                serde_json::to_string(&PublishStatusResponse::from(run.as_ref()))?,
            ),
        })
    }
}

#[async_trait]
impl EventBus for RedisEvents {
    #[tracing::instrument(name = "redis.event_bus.publish", level = "debug", skip_all)]
    async fn publish(&self, event: Event) -> Result<(), Fault> {
        let (channel, message) = self
            .message(&event)
            .map_err(|e| Fault::backend("write an event", e))?;
        let listeners: Result<i64, _> = self.connection.clone().publish(channel, message).await;
        listeners.map(drop).map_err(|e| fault("send an event", e))
    }

    async fn health_check(&self) -> Result<(), Fault> {
        ping("check the events", &self.connection).await
    }
}
