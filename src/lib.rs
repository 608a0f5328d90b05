//! A run coordinator for automated code changes.
//!
//! `domain` knows the rules, `ports` names what is needed from outside, `services` are the use cases, `adapters` talk
//! to the outside, `bootstrap` puts one of each together. ARCHITECTURE.md has the map.

pub mod adapters;
pub mod bootstrap;
pub mod cli;
pub mod domain;
pub mod metrics;
pub mod ports;
pub mod services;
pub mod settings;
pub mod tls;
pub mod worker;
