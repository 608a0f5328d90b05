//! The concepts of the runner and the rules about them: pure values and decisions.
//!
//! Nothing here does I/O or reads a clock: time, ids and randomness are arguments. A new rule gets
//! a file named after its concept and is called from `services/`.

pub mod access;
pub mod active_run;
pub mod assignment;
pub mod audit;
pub mod branch_query;
pub mod branch_url;
pub mod build;
pub mod caller;
pub mod campaign;
pub mod candidate;
pub mod changes;
pub mod codebase;
pub mod command;
pub mod committer;
pub mod finish;
pub mod forge;
pub mod host;
pub mod host_pause;
pub mod interval;
pub mod invalid;
pub mod log_name;
pub mod manual_schedule;
pub mod name;
pub mod pause;
pub mod percent;
pub mod printable;
pub mod probe_limits;
pub mod publish;
pub mod quarantine;
pub mod queue;
pub mod redact;
pub mod relations;
pub mod report;
pub mod resume;
pub mod resume_check;
pub mod retry;
pub mod run;
pub mod schedule;
pub mod termination;
pub mod time;
pub mod uploaded;
pub mod vcs;
pub mod watch;
pub mod worker_clock;
pub mod worker_limits;

pub use invalid::Invalid;
