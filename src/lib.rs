//! A run coordinator for automated code changes.
//!
//! [`domain`] knows the rules, [`ports`] name what is needed from outside, [`services`] are the use
//! cases, [`adapters`] implement the ports and serve HTTP, [`bootstrap`] assembles them.
//! ARCHITECTURE.md has the map.

pub mod adapters;
pub mod bootstrap;
pub mod cli;
pub mod domain;
pub mod http_client;
pub mod metrics;
pub mod ports;
pub mod services;
pub mod settings;
pub mod tls;
pub mod worker;
