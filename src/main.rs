//! The program; `janitor_runner::cli` does the work.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    janitor_runner::cli::run().await
}
