//! What several adapters need and no technology owns.

pub mod availability;
pub mod credentials_cache;
pub mod guarded_http;
pub mod gzip;
pub mod password;
pub mod threads;
