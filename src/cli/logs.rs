//! `run logs`: a run's log on the terminal, as it comes.

use super::client::{Server, ServerArgs};
use anyhow::Result;
use clap::Args;
use reqwest::Method;
use std::{io::Write, process::ExitCode, time::Duration};

const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Which log.
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// The run's id
    id: String,
    /// Go on with what comes, until the run has ended
    #[arg(long, short)]
    follow: bool,
    /// Which of its logs
    #[arg(long, default_value = "worker.log")]
    name: String,
    /// The first byte wanted
    #[arg(long, default_value_t = 0)]
    offset: u64,
    #[command(flatten)]
    server: ServerArgs,
}

/// Copies what there is from that byte on to standard output; moves the offset on. An error of the connection is told from
/// one of the service.
async fn copy(server: &Server, args: &LogsArgs, offset: &mut u64) -> Result<reqwest::Result<()>> {
    let query = [
        ("offset", offset.to_string()),
        ("follow", u8::from(args.follow).to_string()),
    ];
    let mut response = server
        .send(Method::GET, &["log", &args.id, &args.name], &query, None)
        .await?;
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => {
                let mut out = std::io::stdout().lock();
                out.write_all(&chunk)?;
                out.flush()?;
                *offset += chunk.len() as u64;
            }
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Shows a log; one that is followed is followed on when the connection breaks.
pub(super) async fn logs(args: LogsArgs) -> Result<ExitCode> {
    let (server, mut offset) = (Server::new(&args.server.server)?, args.offset);
    loop {
        match copy(&server, &args, &mut offset).await? {
            Ok(()) => return Ok(ExitCode::SUCCESS),
            Err(_) if args.follow => tokio::time::sleep(TRY_AGAIN_AFTER).await,
            Err(error) => return Err(error.into()),
        }
    }
}
