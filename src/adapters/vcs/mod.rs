//! How branches are looked at.

pub mod none;
