//! Runs programs for a run: in a process group of their own, which is stopped whole.

use super::log::RunLog;
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    collections::BTreeMap,
    io,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    process::{Child, Command},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Where the worker may have its password from.
pub const PASSWORD_VARIABLE: &str = "JANITOR_WORKER_PASSWORD";
/// How long a program may take to end once it is told to.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How a program ended.
#[derive(Debug)]
pub(super) enum Ended {
    By(ExitStatus),
    /// It was told to stop by the runner.
    Killed,
    TimedOut,
}

/// The group of a program; what is left of it is killed when this goes.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // An error means that nobody is left in it.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// A shell command.
pub(super) fn shell(command: &str, folder: &Path, env: &BTreeMap<String, String>) -> Command {
    let mut shell = Command::new("sh");
    // The worker's own secrets are none of the script's business.
    shell
        .arg("-c")
        .arg(command)
        .current_dir(folder)
        .env_remove(PASSWORD_VARIABLE)
        .envs(env);
    shell
}

async fn stop(child: &mut Child, group: &Group) {
    group.signal(Signal::TERM);
    if timeout(LAST_WORDS, child.wait()).await.is_err() {
        group.signal(Signal::KILL);
        // It cannot refuse that one.
        drop(child.wait().await);
    }
}

/// Runs a program to its end, its output going to the log.
pub(super) async fn run(
    mut command: Command,
    log: &RunLog,
    stop_signal: &CancellationToken,
    longest: Duration,
) -> io::Result<Ended> {
    command
        .stdin(Stdio::null())
        .stdout(log.output()?)
        .stderr(log.output()?)
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let ended = tokio::select! {
        status = child.wait() => return Ok(Ended::By(status?)),
        () = stop_signal.cancelled() => Ended::Killed,
        () = tokio::time::sleep(longest) => Ended::TimedOut,
    };
    stop(&mut child, &group).await;
    Ok(ended)
}
