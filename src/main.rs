//! The program; `janitor_runner::cli` does the work.

use std::process::ExitCode;

/// The embedded stores allocate much; the system's allocator takes a fifth of the time of a loaded service.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    janitor_runner::cli::run().await
}
