//! The use cases: what the runner does when somebody asks, and what it does by itself. One file each.
//!
//! A service owns the ports it needs and decides by the rules in `domain`. It knows nothing of HTTP or of any store.

pub mod announce;
pub mod assign;
pub mod error;
pub mod explain;
pub mod fate;
pub mod finish;
pub mod follow_up;
pub mod health;
pub mod ingest;
pub mod keepalive;
pub mod lead;
pub mod live;
pub mod logs;
pub mod overview;
pub mod parking;
pub mod pauses;
pub mod relay;
pub mod runs;
pub mod schedule;
pub mod waiting;
pub mod watch;
pub mod workers;

pub use error::ServiceError;

use crate::domain::{
    blame::BlameRules, build::BuildSettings, campaign::Campaigns, retry::Retries, vcs::VcsStore,
    watch::WatchRules,
};

/// The deployment's settings that the use cases depend on.
#[derive(Debug, Clone)]
#[expect(missing_docs)]
pub struct Deployment {
    pub campaigns: Campaigns,
    pub build: BuildSettings,
    pub vcs_store: VcsStore,
    pub committer: Option<String>,
    pub avoid_hosts: Vec<String>,
    pub watch: WatchRules,
    pub retries: Retries,
    pub blame: BlameRules,
    /// The most bytes of logs that are kept of an active run.
    pub live_logs: u64,
    /// Neither probe branches nor look for ones to resume from.
    pub use_cached_only: bool,
}
