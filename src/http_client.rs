//! The HTTP client of the bundled worker and of the command line.

use reqwest::{Client, ClientBuilder};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a response may send nothing.
const READ_TIMEOUT: Duration = Duration::from_secs(120);

/// Makes a client. There is no timeout for whole requests: a log that is followed takes as long as
/// its run.
///
/// # Errors
///
/// Returns an error when the TLS backend cannot be initialised.
pub fn http_client() -> Result<Client, reqwest::Error> {
    http_client_builder().build()
}

/// Returns the builder of such a client.
pub fn http_client_builder() -> ClientBuilder {
    crate::tls::install();
    let agent = concat!("janitor-runner/", env!("CARGO_PKG_VERSION"));
    Client::builder()
        .user_agent(agent)
        .connect_timeout(CONNECT_TIMEOUT)
        .read_timeout(READ_TIMEOUT)
}
