//! Runs programs for a run, each in a process group of its own, which is stopped as a whole.

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

/// The environment variable that may have the worker's password.
pub const PASSWORD_VARIABLE: &str = "JANITOR_WORKER_PASSWORD";
/// How long a program may take to exit after SIGTERM, before it gets SIGKILL.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(5);

/// How a program ended.
#[derive(Debug)]
pub(super) enum ProgramEnd {
    /// It exited by itself.
    Exited(ExitStatus),
    /// It was stopped, because its run was.
    Stopped,
    /// It was stopped, because it took too long.
    TimedOut,
}

/// The process group of a program. Dropping it kills what is left of the group: a program may leave
/// children behind.
struct ProcessGroup(Option<Pid>);

impl ProcessGroup {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            // An error means that no process is left in it.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for ProcessGroup {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Makes a shell command.
pub(super) fn shell(command: &str, folder: &Path, env: &BTreeMap<String, String>) -> Command {
    let mut shell = Command::new("sh");
    // Scripts come with the assignment, and must not get at the worker's own password.
    shell
        .arg("-c")
        .arg(command)
        .current_dir(folder)
        .env_remove(PASSWORD_VARIABLE)
        .envs(env);
    shell
}

async fn stop(child: &mut Child, group: &ProcessGroup) {
    group.signal(Signal::TERM);
    if timeout(TERMINATION_TIMEOUT, child.wait()).await.is_err() {
        group.signal(Signal::KILL);
        // The wait is short, because SIGKILL cannot be ignored.
        drop(child.wait().await);
    }
}

/// Runs a program to its end. Its output is appended to the log.
///
/// # Errors
///
/// Returns an error when the program cannot be started or the log not be written.
pub(super) async fn run(
    mut command: Command,
    log: &RunLog,
    stop_signal: &CancellationToken,
    time_limit: Duration,
) -> io::Result<ProgramEnd> {
    command
        .stdin(Stdio::null())
        .stdout(log.output()?)
        .stderr(log.output()?)
        .process_group(0)
        .kill_on_drop(true);
    let mut child = command.spawn()?;
    let group = ProcessGroup(child.id().and_then(|id| Pid::from_raw(id.cast_signed())));
    let ended = tokio::select! {
        status = child.wait() => return Ok(ProgramEnd::Exited(status?)),
        () = stop_signal.cancelled() => ProgramEnd::Stopped,
        () = tokio::time::sleep(time_limit) => ProgramEnd::TimedOut,
    };
    stop(&mut child, &group).await;
    Ok(ended)
}
