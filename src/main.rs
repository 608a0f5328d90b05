//! The program; [`janitor_runner::cli`] does the work.

use std::process::ExitCode;

/// The embedded stores allocate a lot: with the system's allocator, a service under load would
/// spend a fifth of its time there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    janitor_runner::cli::run().await
}
