//! What talks to the outside: one folder for each technology.
//!
//! `http` lets clients in, and `wire` has the shapes that it and others speak. The other folders
//! implement ports. What several of them need is in `support`.

pub mod backchannel;
pub mod clock;
pub mod embedded;
pub mod fallback;
pub mod gcs;
pub mod http;
pub mod in_process;
pub mod local;
pub mod memory;
pub mod objects;
pub mod postgres;
pub mod redb;
pub mod redis;
pub mod s3;
pub mod sled;
pub mod support;
pub mod vcs;
pub mod wire;

pub use support::threads::off_thread;
