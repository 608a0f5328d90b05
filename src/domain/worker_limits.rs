//! What workers, and whoever guesses their passwords, may use of the service.

/// Wrong logins that are allowed in a minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginLimits {
    /// Those of one address.
    pub by_address: u32,
    /// Those with one name, from all addresses.
    pub by_name: u32,
}

/// The limits of each worker; zero means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MaxOfWorker {
    /// Active runs.
    pub runs: u32,
    /// Requests in a second.
    pub requests_per_second: u32,
}
