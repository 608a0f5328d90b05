//! What keeps the programs of a codemod together, so that none of them outlives its run.
//!
//! A program that forks faster than processes can be listed is never found in a list. The kernel
//! ends all processes of a namespace together: so each program is the first one of its own, where
//! the machine allows that.

use super::{sandbox::Sandbox, script_user::ScriptUser};
use std::path::Path;
use tokio::process::Command;

/// The script of the first process in a namespace. It passes on the status of the program that it
/// runs, and survives the signal that stops a run, which the program may want to handle.
const INIT: &str = "trap : TERM; \"$@\"; exit $?";

/// How the programs of codemods are kept together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Isolation {
    /// In a sandbox, which is a namespace too.
    Sandbox(Sandbox),
    /// In a namespace of processes.
    Namespace {
        /// Whether it belongs to a namespace of users, without which only root can have one.
        has_users: bool,
    },
    /// Not at all: what a program leaves behind is searched for.
    None,
}

impl Isolation {
    /// Returns the sandbox, if there is one, or else what this machine allows.
    pub(super) async fn new(sandbox: Option<Sandbox>, user: Option<ScriptUser>) -> Self {
        if let Some(sandbox) = sandbox {
            return Self::Sandbox(sandbox);
        }
        let is_root = rustix::process::geteuid().is_root() && user.is_none();
        let namespace = Self::Namespace {
            has_users: !is_root,
        };
        let mut command = namespace.command("true", Path::new("/"));
        if let Some(user) = user {
            user.apply(&mut command);
        }
        match command.current_dir("/").output().await {
            Ok(output) if output.status.success() => namespace,
            Ok(output) => Self::unavailable(String::from_utf8_lossy(&output.stderr).trim()),
            Err(error) => Self::unavailable(&error.to_string()),
        }
    }

    fn unavailable(reason: &str) -> Self {
        tracing::warn!(
            reason,
            "no namespaces of processes: a codemod that forks fast enough may outlive its run, \
             which fails then"
        );
        Self::None
    }

    /// Returns how many looks in a row must find no process of a run.
    pub(super) fn quiet_looks(&self) -> usize {
        match self {
            // The first process of a namespace is there until all others have ended.
            Self::Sandbox(_) | Self::Namespace { .. } => 1,
            Self::None => 3,
        }
    }

    /// Makes a command of a codemod.
    pub(super) fn command(&self, program: &str, run_folder: &Path) -> Command {
        match self {
            Self::Sandbox(sandbox) => sandbox.command(program, run_folder),
            Self::Namespace { has_users } => {
                // It ends with the worker.
                let mut command = Command::new("setpriv");
                command.args(["--pdeathsig", "KILL", "unshare"]);
                if *has_users {
                    command.args(["--user", "--map-current-user"]);
                }
                command
                    .args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"])
                    .args(["sh", "-c", INIT, "sh", program]);
                command
            }
            Self::None => Command::new(program),
        }
    }
}
