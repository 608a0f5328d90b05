//! A local fallback for remote file stores: store and forward.
//!
//! While a store fails, its files are spooled in a local directory (the setting
//! `backup_directory`), below `artifacts/RUN_ID/` and `logs/CODEBASE/RUN_ID/` as the local stores
//! lay them out. A finished run is thus never lost with its store, and files that a crash leaves
//! there are found again. The [`Drainer`] moves them to their store once it works again.

mod artifacts;
mod circuit_breaker;
mod drainer;
mod folders;
mod logs;

pub use artifacts::{FallbackArtifacts, SpooledArtifacts};
pub use drainer::{Drainer, SpooledFiles};
pub use logs::{FallbackLogs, SpooledLogs};
