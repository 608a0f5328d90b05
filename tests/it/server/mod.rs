//! The real program: recorded exchanges, stores of earlier versions, kills, the demo, the bundled
//! worker and the command line.

mod commands;
mod compatibility;
mod crash;
mod golden;
mod log_readers;
mod old_stores;
mod sockets;
mod worker;
mod worker_files;
pub mod worker_fixture;
mod worker_git;
mod worker_lives;
mod worker_outage;
mod worker_processes;
