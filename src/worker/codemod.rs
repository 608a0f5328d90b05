//! Runs programs for a run, each in a process group of its own, which is stopped as a whole, and
//! ends what they leave behind.

use super::{
    isolation::Isolation,
    log::RunLog,
    processes::{self, Family, OwnChild},
};
use rustix::process::{Pid, Signal, kill_process_group};
use std::{
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// The environment variable that may have the worker's password.
pub const PASSWORD_VARIABLE: &str = "JANITOR_WORKER_PASSWORD";
/// How long a program may take to exit after SIGTERM, before it gets SIGKILL.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(5);
/// The bytes of a program's output that are kept when it is not for the log.
const MAX_OUTPUT_SIZE: usize = 64 << 10;

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

/// How the programs of a run are run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Supervision<'a> {
    /// The log that their output is appended to.
    pub(super) log: &'a RunLog,
    /// Cancelled when the run is to stop.
    pub(super) stop: &'a CancellationToken,
    /// How long each may take.
    pub(super) timeout: Duration,
    /// Ends the processes that they leave behind.
    pub(super) family: &'a Family,
    /// What keeps them together.
    pub(super) isolation: &'a Isolation,
    /// The entry of their environment by which such processes are recognised.
    pub(super) mark: &'a str,
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

async fn stop(own: &mut OwnChild, group: &ProcessGroup) {
    group.signal(Signal::TERM);
    if timeout(TERMINATION_TIMEOUT, own.child.wait())
        .await
        .is_err()
    {
        group.signal(Signal::KILL);
        // The wait is short, because SIGKILL cannot be ignored.
        drop(own.child.wait().await);
    }
}

/// Reads all of an output, and returns its start.
async fn read_start(mut output: impl AsyncRead + Unpin) -> Vec<u8> {
    let (mut start, mut buffer) = (vec![], [0; 8 << 10]);
    while let Ok(size @ 1..) = output.read(&mut buffer).await {
        let free = MAX_OUTPUT_SIZE - start.len();
        start.extend(buffer.iter().take(size.min(free)));
    }
    start
}

impl Supervision<'_> {
    /// Waits for a program, and stops it when its run stops or its time is over.
    async fn wait(&self, own: &mut OwnChild) -> io::Result<ProgramEnd> {
        let id = own.child.id();
        let group = ProcessGroup(id.and_then(|id| Pid::from_raw(id.cast_signed())));
        let ended = tokio::select! {
            status = own.child.wait() => return Ok(ProgramEnd::Exited(status?)),
            () = self.stop.cancelled() => ProgramEnd::Stopped,
            () = tokio::time::sleep(self.timeout) => ProgramEnd::TimedOut,
        };
        stop(own, &group).await;
        Ok(ended)
    }

    /// Ends the processes that have left the group of their program.
    ///
    /// # Errors
    ///
    /// Returns an error when some are left: whatever is done with the files of the run now, they
    /// could change meanwhile.
    pub(super) async fn end_remains(&self) -> io::Result<()> {
        let looks = self.isolation.quiet_looks();
        match self.family.end(self.mark, looks).await {
            0 => Ok(()),
            left => {
                let reason = format!("{left} processes of the run could not be ended");
                self.log.line(&reason);
                Err(io::Error::other(reason))
            }
        }
    }

    fn spawn(&self, command: &mut Command) -> io::Result<OwnChild> {
        command
            .stdin(Stdio::null())
            .stderr(self.log.output()?)
            .process_group(0)
            .kill_on_drop(true);
        processes::spawn(command)
    }

    /// Runs a program to its end. What it prints is appended to the log.
    ///
    /// # Errors
    ///
    /// Returns an error when the program cannot be started or the log not be written.
    pub(super) async fn run(&self, mut command: Command) -> io::Result<ProgramEnd> {
        command.stdout(self.log.output()?);
        self.run_into(command).await
    }

    /// Runs a program whose standard output goes where the caller has directed it.
    ///
    /// # Errors
    ///
    /// Returns an error when the program cannot be started or the log not be written.
    pub(super) async fn run_into(&self, mut command: Command) -> io::Result<ProgramEnd> {
        let own = self.spawn(&mut command)?;
        self.end(own).await
    }

    /// Waits for a program, and ends what it leaves behind.
    async fn end(&self, mut own: OwnChild) -> io::Result<ProgramEnd> {
        let ended = self.wait(&mut own).await;
        drop(own);
        self.end_remains().await?;
        ended
    }

    /// Runs a program to its end, and returns the start of its output too.
    ///
    /// # Errors
    ///
    /// Returns an error when the program cannot be started or the log not be written.
    pub(super) async fn output(&self, mut command: Command) -> io::Result<(ProgramEnd, Vec<u8>)> {
        command.stdout(Stdio::piped());
        let mut own = self.spawn(&mut command)?;
        let output = own.child.stdout.take();
        let read = async {
            Ok(match output {
                Some(output) => read_start(output).await,
                None => vec![],
            })
        };
        // What the program leaves behind may keep its output open: it is ended while that is read.
        tokio::try_join!(self.end(own), read)
    }
}
