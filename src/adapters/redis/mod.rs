//! The Redis server of a Janitor deployment: events on its channels, and active runs in its hashes.
//!
//! Redis only receives what has happened already; no decision depends on it. So no request fails
//! because Redis is not available.

mod claim_mirror;
mod events;
mod hashes;

pub use claim_mirror::{ClaimMirror, MirrorStores, MirroredStores};
pub use events::RedisEvents;

use crate::ports::Fault;
use ::redis::{
    Client, RedisError,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use std::time::Duration;

/// How long it may take to connect, and to get a response.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Returns a connection that is opened when it is first used, and again when it breaks.
///
/// # Errors
///
/// Returns [`Fault::Backend`] when the URL cannot be used.
pub fn connect(url: &str) -> Result<ConnectionManager, Fault> {
    let invalid = |e: RedisError| Fault::backend("read the URL of Redis", e);
    let client = Client::open(url).map_err(invalid)?;
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(TIMEOUT))
        .set_response_timeout(Some(TIMEOUT))
        .set_number_of_retries(1)
        .set_max_delay(TIMEOUT);
    ConnectionManager::new_lazy_with_config(client, config).map_err(invalid)
}

/// Converts an error. Nothing that Redis reports is wrong for good: it is restarted, full, or
/// loading.
fn fault(action: &'static str, error: RedisError) -> Fault {
    Fault::unavailable(action, error)
}

async fn ping(action: &'static str, connection: &ConnectionManager) -> Result<(), Fault> {
    let reply = ::redis::cmd("PING")
        .query_async::<String>(&mut connection.clone())
        .await;
    reply.map(drop).map_err(|e| fault(action, e))
}
