//! The Redis server of a Janitor deployment: events on its channels, and claims in its hashes.
//!
//! Redis is told what happened, and never asked before something happens: no request fails because it is away.

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

/// How long the server may take to answer, or to be reached.
const PATIENCE: Duration = Duration::from_secs(1);

/// A connection that is made when it is first used, and made again when it breaks.
pub fn connect(url: &str) -> Result<ConnectionManager, Fault> {
    let wrong = |e: RedisError| Fault::backend("read the URL of Redis", e);
    let client = Client::open(url).map_err(wrong)?;
    let config = ConnectionManagerConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE))
        .set_number_of_retries(1)
        .set_max_delay(PATIENCE);
    ConnectionManager::new_lazy_with_config(client, config).map_err(wrong)
}

fn fault(action: &'static str, error: RedisError) -> Fault {
    Fault::unavailable(action, error)
}

async fn ping(action: &'static str, connection: &ConnectionManager) -> Result<(), Fault> {
    let answer = ::redis::cmd("PING")
        .query_async::<String>(&mut connection.clone())
        .await;
    answer.map(drop).map_err(|e| fault(action, e))
}
