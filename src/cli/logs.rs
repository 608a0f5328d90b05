//! `run logs`: prints a log of a run as it arrives.

use super::{
    client::{Server, ServerArgs},
    output::LogOutput,
};
use anyhow::Result;
use clap::Args;
use std::{process::ExitCode, time::Duration};

/// The pause before a followed log is requested again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Which log to print.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Id of the run
    id: String,
    /// Keep printing what is appended until the run ends
    #[arg(long, short)]
    follow: bool,
    /// Name of the log
    #[arg(long, default_value = "worker.log")]
    name: String,
    /// First byte to print
    #[arg(long, default_value_t = 0)]
    offset: u64,
    #[command(flatten)]
    server: ServerArgs,
}

/// Copies a log to standard output, from `offset` on, which moves with each byte that was written.
///
/// An error of the connection is the inner one, because only that can be helped by trying again.
async fn copy(
    server: &Server,
    args: &LogsArgs,
    offset: &mut u64,
    output: &mut LogOutput,
) -> Result<reqwest::Result<()>> {
    let query = [
        ("offset", offset.to_string()),
        ("follow", u8::from(args.follow).to_string()),
    ];
    let mut response = server
        .get_raw(&["log", &args.id, &args.name], &query)
        .await?;
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                if !output.print(&chunk) {
                    return Ok(Ok(()));
                }
                *offset += chunk.len() as u64;
            }
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Prints a log. A followed one is resumed when the connection breaks.
pub(super) async fn logs(args: LogsArgs) -> Result<ExitCode> {
    let (server, mut offset) = (args.server.client()?, args.offset);
    let mut output = LogOutput::new();
    loop {
        match copy(&server, &args, &mut offset, &mut output).await? {
            Ok(()) => return Ok(ExitCode::SUCCESS),
            Err(_) if args.follow => tokio::time::sleep(RETRY_DELAY).await,
            Err(error) => return Err(error.into()),
        }
    }
}
