//! The ports: what the services need from outside, one trait in each file. The docs of a method are
//! its contract, and `tests/it/contract` tests every adapter against it.
//!
//! One method is one atomic step: there is no begin and commit, because not every store could
//! honour them. Absent things are `None` or `false`, not errors. Each trait has at most eight
//! methods.

pub mod active_runs;
pub mod artifact_store;
pub mod audit_log;
pub mod backchannel;
pub mod catalog;
pub mod clock;
pub mod credentials;
pub mod event_bus;
pub mod fault;
pub mod health_check;
pub mod host_backoff;
pub mod leadership;
pub mod live_logs;
pub mod log_store;
pub mod outbox;
pub mod parking;
pub mod pauses;
pub mod queue_notifier;
pub mod queue_store;
pub mod run_history;
pub mod run_recorder;
pub mod run_store;
pub mod schedule_store;
pub mod vcs;

pub use active_runs::{ActiveRunStore, ActiveRunStoreError};
pub use artifact_store::{ArtifactStore, SpooledFile};
pub use audit_log::AuditLog;
pub use backchannel::{Backchannel, BackchannelError};
pub use catalog::{Catalog, CatalogError};
pub use clock::{Clock, Ids, Randomness};
pub use credentials::{Credentials, CredentialsError};
pub use event_bus::{Event, EventBus};
pub use fault::{ErrorChain, Fault};
pub use health_check::HealthCheck;
pub use host_backoff::HostBackoffs;
pub use leadership::LeaderElection;
pub use live_logs::LiveLogs;
pub use log_store::LogStore;
pub use outbox::Outbox;
pub use parking::Parking;
pub use pauses::PauseStore;
pub use queue_notifier::QueueNotifier;
pub use queue_store::{QueueStore, QueueStoreError};
pub use run_history::RunHistory;
pub use run_recorder::RunRecorder;
pub use run_store::{RunStore, RunStoreError};
pub use schedule_store::ScheduleStore;
pub use vcs::Vcs;
