//! What several adapters need and no technology owns: one file for each subject, with nothing of
//! the adapters that use it.

pub mod availability;
pub mod guarded_http;
pub mod gzip;
mod networks;
pub mod password;
pub mod threads;
