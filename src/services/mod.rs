//! The use cases: what the runner does on request, and what it does in the background. One file
//! each.
//!
//! A service owns the ports that it needs and decides by the rules in `domain`. It knows nothing of
//! HTTP or of any store. Each use case has a span, named `services.<noun>.<verb>`.

pub mod assign;
pub mod audit;
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
pub mod logins;
pub mod logs;
pub mod long_poll;
pub mod outbox_publisher;
pub mod overview;
pub mod parking;
pub mod pauses;
pub mod prober;
pub mod resumes;
pub mod resumption;
pub mod retry;
pub mod runs;
pub mod schedule;
pub mod status_publisher;
pub mod watch;
pub mod worker_limits;
pub mod workers;

pub use error::ServiceError;
pub use overview::Overview;

use crate::domain::{
    build::BuildSettings,
    campaign::Campaigns,
    forge::Forge,
    interval::IntervalRules,
    probe_limits::ProbeLimits,
    quarantine::QuarantinePolicy,
    retry::RetryRules,
    vcs::VcsStore,
    watch::WatchRules,
    worker_limits::{LoginLimits, MaxOfWorker},
};

/// The settings of the deployment that the use cases depend on.
#[derive(Debug, Clone)]
pub struct CoordinatorConfig {
    /// The campaigns and distributions.
    pub campaigns: Campaigns,
    /// The settings of builds.
    pub build: BuildSettings,
    /// The locations of the VCS store.
    pub vcs_store: VcsStore,
    /// The accounts on forges that own the branches of proposals.
    pub forges: Vec<Forge>,
    /// How much is probed at a time.
    pub probing: ProbeLimits,
    /// The committer of changes, `Name <email>`.
    pub committer: Option<String>,
    /// The hosts whose codebases are not assigned.
    pub avoid_hosts: Vec<String>,
    /// The rules by which active runs are watched.
    pub watch: WatchRules,
    /// The retry rules.
    pub retries: RetryRules,
    /// The intervals between runs that nobody asked for.
    pub intervals: IntervalRules,
    /// The policy by which workers are quarantined.
    pub quarantine: QuarantinePolicy,
    /// How many wrong logins are allowed.
    pub logins: LoginLimits,
    /// What one worker may use.
    pub max_of_worker: MaxOfWorker,
    /// The maximum size of the live logs of an active run, in bytes.
    pub live_logs: u64,
}
