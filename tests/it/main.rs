//! The integration tests: one binary, so that it is linked once.
//!
//! `contract/` holds every adapter to the contract of its port, `services/` tests the use cases over an embedded store,
//! `http/` the API as clients see it, `server/` the program as a process, `faults/` what happens when servers, workers and
//! networks fail, `security/` what strangers and hostile codemods can do, `vcs/` how branches are probed. `architecture.rs` checks which layer depends on what. `support/` is what they share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

mod architecture;
mod contract;
mod faults;
mod http;
mod security;
mod server;
mod services;
mod support;
mod vcs;
