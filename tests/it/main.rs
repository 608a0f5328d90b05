//! The integration tests: one binary, so that it is linked once.
//!
//! `contract/` holds every adapter to the contract of its port, `http/` goes through the router, `server/` through a
//! real process, `architecture.rs` keeps the rooms apart. `support/` is what they share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod architecture;
mod contract;
mod faults;
mod http;
mod server;
mod services;
mod support;
