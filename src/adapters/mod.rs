//! What talks to the outside: one folder a technology. `http` is the way in, the others implement ports.

pub mod backchannels;
pub mod backup;
pub mod calls;
pub mod clock;
pub mod credentials_cache;
pub mod embedded;
pub mod gcs;
pub mod gzip;
pub mod http;
pub mod in_process;
pub mod jenkins;
pub mod local;
pub mod memory;
pub mod none;
pub mod objects;
mod openings;
pub mod password;
pub mod polling;
pub mod postgres;
pub mod redis;
pub mod s3;
pub mod sled;
mod threads;

pub use threads::off_thread;
