//! The use cases: what the runner does when somebody asks, and what it does by itself. One file each.
//!
//! A service owns the ports it needs and decides by the rules in `domain`. It knows nothing of HTTP or of any store.

pub mod assign;
pub mod error;
pub mod explain;
pub mod finish;
pub mod follow_up;
pub mod health;
pub mod ingest;
pub mod keepalive;
pub mod leadership;
pub mod limits;
pub mod live_log;
pub mod logs;
pub mod long_poll;
pub mod outbox_publisher;
pub mod overview;
pub mod parking;
pub mod pauses;
pub mod retry;
pub mod runs;
pub mod schedule;
pub mod status_publisher;
pub mod watch;
pub mod workers;

pub use error::ServiceError;
pub use overview::Overview;

use crate::domain::{
    build::BuildSettings, campaign::Campaigns, quarantine::QuarantinePolicy, retry::RetryRules,
    vcs::VcsStore, watch::WatchRules,
};

/// The deployment's settings that the use cases depend on.
#[derive(Debug, Clone)]
#[expect(missing_docs)]
pub struct CoordinatorConfig {
    pub campaigns: Campaigns,
    pub build: BuildSettings,
    pub vcs_store: VcsStore,
    pub committer: Option<String>,
    pub avoid_hosts: Vec<String>,
    pub watch: WatchRules,
    pub retries: RetryRules,
    pub quarantine: QuarantinePolicy,
    /// The most bytes of logs that are kept of an active run.
    pub live_logs: u64,
    /// Neither probe branches nor look for ones to resume from.
    pub use_cached_only: bool,
}
